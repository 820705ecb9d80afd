"""A bundle of small wheels, its installer, and an ordinary user without a network."""

import ensurepip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from guilder import bundle
from guilder.wheel import pack

NOBODY = 65534
SYSTEMS = "/usr/bin/python3"
CUT = ["unshare", "--net", "--map-root-user"]
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def wheels_in(folder: Path) -> Path:
    """Two packages of ours, one with a command, and Python's own pip."""
    points = b"[console_scripts]\nhello = alpha:main\n"
    code = b"def main():\n    import beta\n    print('hello', beta.WORD)\n"
    for name, files, extra in (
        ("alpha", {"alpha/__init__.py": code}, {"entry_points.txt": points}),
        ("beta", {"beta/__init__.py": b"WORD = 'bundle'\n"}, {}),
    ):
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
        pack(name, "1.0", files, {"METADATA": text, **extra}, folder)
    (pip,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    shutil.copy(pip, folder)
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    wheels_in(tmp_path / "bundle" / "wheels")
    bundle.assemble(tmp_path / "bundle")
    return tmp_path / "bundle"


def install(
    made: Path,
    where: Path,
    *,
    before: tuple[str, ...] = (),
    python: str = sys.executable,
    number: str | None = None,
    at: Path | None = None,
    **own: str,
) -> subprocess.CompletedProcess[str]:
    """Run the bundle's installer, with its own number unless another is given."""
    env = {"PATH": "/usr/bin:/bin", "PYTHON": python, "HOME": str(where.parent)}
    told = number_of(made) if number is None else number
    return subprocess.run(
        [*before, "sh", str(made / "install.sh"), str(where), *told.split()],
        capture_output=True, text=True, check=False, env=env | own, cwd=at,
    )  # fmt: skip


def number_of(made: Path) -> str:
    return hashlib.sha256((made / "SHA256SUMS").read_bytes()).hexdigest()


def cut() -> tuple[str, ...]:
    """Without any network, where this user may have that."""
    works = subprocess.run([*CUT, "true"], capture_output=True, check=False)
    return () if works.returncode else tuple(CUT)


def cut_off() -> tuple[str, ...]:
    """Without any network but loopback, where this user may have that."""
    if not cut():
        return ()
    shell = 'ip link set lo up 2>/dev/null; exec "$0" "$@"'
    return (*(cut() if os.getuid() else CUT[:2]), "sh", "-c", shell)


def ordinary(folder: Path) -> tuple[tuple[str, ...], str]:
    """How to become an ordinary user with a folder of its own, and its Python."""
    own = folder / "own"
    own.mkdir()
    here = [str(number) for number in sys.version_info[:2]]
    asked = [SYSTEMS, "-c", "import sys; print(*sys.version_info[:2])"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if os.getuid() or not shutil.which("setpriv") or found.stdout.split() != here:
        return (), sys.executable
    os.chown(own, NOBODY, NOBODY)
    return (*AS_NOBODY,), SYSTEMS


@pytest.fixture
def shared_place() -> Iterator[Path]:
    """A folder that other users can reach; pytest keeps its own to itself."""
    with tempfile.TemporaryDirectory(prefix="guilder-bundle-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def machine() -> SimpleNamespace:
    """What is done on the other machine."""
    return SimpleNamespace(
        install=install,
        number_of=number_of,
        wheels_in=wheels_in,
        cut=cut,
        cut_off=cut_off,
        ordinary=ordinary,
        nobody=NOBODY,
        as_nobody=AS_NOBODY,
        systems=SYSTEMS,
    )
