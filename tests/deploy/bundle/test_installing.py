"""A bundle is installed as an ordinary user, without root, compiler or network.

Small wheels stand for Guilder's; `test_whole.py` has the whole of it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def test_a_bundle_is_installed_without_a_network_and_runs(
    made: Path, tmp_path: Path, machine: Any
) -> None:
    done = machine.install(made, tmp_path / "env", before=machine.cut())

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("needs: Linux ")
    hello = subprocess.run(
        [tmp_path / "env" / "bin" / "hello"], capture_output=True, text=True, check=True
    )
    assert hello.stdout == "hello bundle\n"


def test_an_older_glibc_is_told_before_anything_is_made(
    made: Path, tmp_path: Path, machine: Any
) -> None:
    script = made / "install.sh"
    script.write_text(script.read_text().replace('"2.17"', '"9.99"'))

    done = machine.install(made, tmp_path / "env")

    assert done.returncode == 2
    assert "is older than" in done.stderr
    assert not (tmp_path / "env").exists()


def test_another_python_is_named(made: Path, tmp_path: Path, machine: Any) -> None:
    script = made / "install.sh"
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    text = script.read_text()
    script.write_text(text.replace(f'[ "$found" = "{here}" ]', '[ "$found" = "3.99" ]'))

    done = machine.install(made, tmp_path / "env")

    assert done.returncode == 2
    assert "GLD-M007" in done.stderr


def test_root_is_not_needed(
    made: Path, tmp_path: Path, shared_place: Path, machine: Any
) -> None:
    """Installed as the user nobody, where this test may become that user."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        assert machine.install(made, tmp_path / "env").returncode == 0
        return
    place = shared_place / "place"
    place.mkdir()
    shutil.copytree(made, place / "bundle")
    for path in (place, *place.rglob("*")):
        os.chown(path, machine.nobody, machine.nobody)
    asked = [
        *machine.as_nobody,
        machine.systems,
        "-c",
        "import sys; print(*sys.version_info[:2])",
    ]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.stdout.split() != [str(number) for number in sys.version_info[:2]]:
        pytest.skip("another user has no such Python here")

    done = machine.install(
        place / "bundle",
        place / "env",
        before=machine.as_nobody,
        python=machine.systems,
    )

    assert done.returncode == 0, done.stderr
    assert (place / "env" / "bin" / "hello").stat().st_uid == machine.nobody
