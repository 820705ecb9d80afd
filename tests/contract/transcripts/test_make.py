"""A developer with a fresh clone types what the first pages show.

What `make` would download is there already, but for two lines which say how to
download: there programs that tell what they were asked stand for uv and pip. The checks
are of this very clone, in which the environment is at home.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
README, CONTRIBUTING, BENCHMARKS = (
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
)
TOOLS = ("make", "sh", "env", "uname", "touch", "tr", "mkdir", "cp", "chmod", "cat")
UV = """\
#!/bin/sh
echo "UV_TORCH_BACKEND=${UV_TORCH_BACKEND:-} uv $*"
[ "$1" = venv ] && mkdir -p .venv/bin && cp "$(dirname "$0")/demo" .venv/bin/guilder
exit 0
"""
PYTHON = """\
#!/bin/sh
case "$*" in
    *"-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python
        printf '#!/bin/sh\\necho guilder "$@"\\n' >.venv/bin/guilder
        chmod +x .venv/bin/guilder;;
    *"-m pip install"*) echo "pip ${*#*-m pip }";;
esac
"""


def clone(folder: Path) -> None:
    """What git has, and an environment that is installed already."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no clone")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    venv = folder / ".venv"
    venv.mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith("."):
            (venv / part.name).symlink_to(part)
    for stamp in (".installed", ".installed-dev"):
        (venv / stamp).touch()
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("make has not made this environment")


@pytest.mark.slow(minutes=4)  # the demo, all checks and a benchmark
@pytest.mark.timeout(2400)
def test_a_developer_types_make(reader: Any) -> None:
    place = reader.folder / "guilder"
    place.mkdir()
    clone(place)
    reader.env |= {"ARGS": "tests/shared/test_claims.py", "JOBS": "1"}
    usual = reader.env["PATH"]

    demo = reader.type(README, "make demo", "guilder")
    assert "reports written and verified" in demo
    assert json.loads((place / "guilder-demo/summary.json").read_text())
    for page in (README, CONTRIBUTING):
        assert " passed" in reader.type(page, "make test", "guilder")
    checked = reader.line(CONTRIBUTING, "make check").text
    reader.env["MAKEFLAGS"] = "--old-file=.venv/.installed-dev"  # as it is, it is
    assert "Success" in reader.shell(checked, str(ROOT), patience_s=900)
    del reader.env["MAKEFLAGS"]
    assert " passed" in reader.type(CONTRIBUTING, "make test-all", "guilder")
    bench = reader.line(BENCHMARKS, "python benchmarks/").text
    told = reader.shell(bench, "guilder", patience_s=900).splitlines()[-1]
    assert json.loads(told)["benchmark"] == "round_latency"

    with_uv = downloads(reader, "with-uv", {"uv": UV, "python3": PYTHON})
    told = reader.type(README, "UV_TORCH_BACKEND=", with_uv)
    assert "UV_TORCH_BACKEND=cpu uv pip install" in told
    with_pip = downloads(reader, "with-pip", {"python3": PYTHON})
    told = reader.type(README, "make demo TORCH_INDEX", with_pip)
    assert "--extra-index-url https://... --editable ." in told
    assert told.splitlines()[-1] == "guilder demo"
    reader.env["PATH"] = usual
    reader.demand_all_typed("test_a_developer_types_make")


def downloads(reader: Any, name: str, programs: dict[str, str]) -> str:
    """A clone where nothing is installed, and its own `bin` as the whole PATH."""
    place = reader.folder / name
    tools = place / "bin"
    tools.mkdir(parents=True)
    for file in ("Makefile", "pyproject.toml", "constraints.txt", "deploy/install.sh"):
        (place / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, place / file)
    for tool in (*TOOLS, "dirname"):
        found = shutil.which(tool)
        assert found
        (tools / tool).symlink_to(found)
    scripts = {**programs, "demo": '#!/bin/sh\necho guilder "$@"\n'}
    for program, text in scripts.items():
        (tools / program).write_text(text)
        (tools / program).chmod(0o755)
    reader.env["PATH"] = str(tools)
    return name
