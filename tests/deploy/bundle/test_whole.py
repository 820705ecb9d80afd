"""The whole of Guilder in a bundle, where pip can fetch it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow(minutes=4)
@pytest.mark.timeout(1200)
def test_all_of_guilder_is_bundled_installed_offline_and_shows_its_demo(
    shared_place: Path, machine: Any
) -> None:
    made = shared_place / "bundle"
    page = (ROOT / "docs/operator.md").read_text().splitlines()
    (typed,) = [line for line in page if line.startswith("guilder bundle ")]
    words = typed.replace("FOLDER", str(made)).split()
    fetched = subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if fetched.returncode and "GLD-C153" in fetched.stderr:
        pytest.skip("pip can fetch nothing here")
    assert fetched.returncode == 0, fetched.stderr
    place, python = machine.ordinary(shared_place)
    before = (*machine.cut_off(), *place)
    printed = fetched.stdout.split("SHA256SUMS is ")[1].split()[0]
    wheel = next((made / "wheels").glob("numpy-*.whl"))
    data = wheel.read_bytes()
    wheel.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    spoilt = machine.install(
        made, shared_place / "own/env", before=before, python=python
    )
    wheel.write_bytes(data)

    done = machine.install(
        made, shared_place / "own/env", before=before, python=python, number=printed
    )
    assert done.returncode == 0, done.stderr
    assert (spoilt.returncode, "GLD-M008" in spoilt.stderr) == (5, True)

    def guilder(*words: str) -> subprocess.CompletedProcess[str]:
        home = str(shared_place / "own")
        return subprocess.run(
            [*before, f"{home}/env/bin/guilder", *words],
            capture_output=True, text=True, check=False, cwd=home,
            env={"PATH": "/usr/bin:/bin", "HOME": home, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    demo = guilder("demo", "--json", "--out", "demo")
    checked = guilder(
        "client", "check", "--offline", "--site", "demo/sites/site-1/site.toml"
    )

    assert demo.returncode == 0, demo.stderr
    assert json.loads(demo.stdout.splitlines()[-1])["reports_verified"]
    assert checked.returncode == 0, checked.stdout
    assert "READY" in checked.stdout
