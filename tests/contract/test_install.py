"""What `make` says on a machine that lacks something, before it installs anything."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLD_PYTHON = '[ "$1" = -V ] && echo "Python 3.9.2"; exit 1'
PYTHON_WITHOUT_VENV = 'case "$2" in *ensurepip*) exit 1;; esac; exit 0'


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what make reads, and `bin/` as its whole PATH."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "deploy/install.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for tool in ("make", "sh", "env", "uname", "touch", "tr"):
        found = shutil.which(tool)
        assert found
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def add_program(clone: Path, name: str, script: str) -> None:
    path = clone / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def make(clone: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(clone / "bin/make"), *words],
        cwd=clone,
        env={"PATH": str(clone / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_old_python_is_named_with_the_way_out(clone: Path) -> None:
    add_program(clone, "python3", OLD_PYTHON)

    done = make(clone, "demo")

    assert done.returncode == 2
    assert (
        "no Python of 3.11 or newer was found (python3 is Python 3.9.2)" in done.stderr
    )
    assert "PYTHON=/path/to" in done.stderr


def test_a_python_named_by_hand_is_never_replaced_by_another(clone: Path) -> None:
    add_program(clone, "python3", "exit 0")
    add_program(clone, "mine", OLD_PYTHON)

    done = make(clone, "test", "PYTHON=mine")

    assert done.returncode == 2
    assert "PYTHON=mine is not a Python of 3.11 or newer" in done.stderr


def test_a_debian_without_python3_venv_is_told_the_package(clone: Path) -> None:
    add_program(clone, "python3", PYTHON_WITHOUT_VENV)

    done = make(clone, "demo")

    assert done.returncode == 2
    assert "sudo apt install python3-venv" in done.stderr


def test_uv_is_handed_what_pip_was_told(clone: Path) -> None:
    add_program(clone, "python3", "exit 0")
    add_program(clone, "uv", 'echo "$UV_COMPILE_BYTECODE $UV_FIND_LINKS | $*"')
    wheels = {"PATH": str(clone / "bin"), "PIP_FIND_LINKS": "/a /b"}

    done = subprocess.run(
        ["deploy/install.sh", "dev"],
        cwd=clone,
        env=wheels | {"TORCH_INDEX": "file:///cpu"},
        capture_output=True,
        text=True,
        check=True,
    )

    made, installed = done.stdout.splitlines()
    assert "| venv" in made
    assert installed.startswith("1 /a,/b | pip install")
    assert installed.endswith("--extra-index-url file:///cpu --editable .[dev]")


def test_a_failed_install_leaves_no_stamp(clone: Path) -> None:
    add_program(clone, "python3", "exit 0")
    add_program(clone, "uv", "exit 1")

    done = make(clone, "demo")

    assert done.returncode == 2
    assert not (clone / ".venv/.installed").exists()
