"""A bundle that somebody changed on its way: nothing of it runs, nothing is installed.

Whoever carries it can change every file, the installer too. Two commands of the machine
itself come first; the page that names them is typed here word for word.
"""

import hashlib
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from guilder.wheel import pack

ROOT = Path(__file__).parents[3]
BETA = "wheels/beta-1.0-py3-none-any.whl"
METADATA = {"METADATA": b"Metadata-Version: 2.1\nName: beta\nVersion: 1.0\n"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Thief:
    """Who has the bundle for a while, and what is left of his code when it runs."""

    def __init__(self, made: Path, number: str, trace: Path) -> None:
        self.made, self.number, self.trace = made, number, trace
        self.code = f"open({str(trace)!r}, 'w').close()\n"

    def wheel(self) -> None:
        pack("beta", "1.0", {"beta/__init__.py": b"#"}, METADATA, self.made / "wheels")

    def sums(self) -> None:
        """All sums written anew, as if it had been bundled so."""
        files = sorted(p for p in self.made.rglob("*") if p.is_file())
        lines = [
            f"{sha256(p)}  {p.relative_to(self.made)}\n"
            for p in files
            if p.name != "SHA256SUMS"
        ]
        (self.made / "SHA256SUMS").write_text("".join(lines))

    def installer(self) -> None:
        (self.made / "install.sh").write_text(f"touch {self.trace}\n")

    def second_pip(self) -> None:
        """Taken for pip, since its name comes first."""
        with zipfile.ZipFile(self.made / "wheels/pip-0-py3-none-any.whl", "w") as file:
            file.writestr("pip/__main__.py", self.code)

    def module(self) -> None:
        """Found by `python -m venv` in a folder in which it is started."""
        (self.made / "venv.py").write_text(self.code)

    def link(self) -> None:
        place = self.made / BETA
        place.rename(self.made.parent / place.name)
        place.symlink_to(self.made.parent / place.name)

    def linked_folder(self) -> None:
        (self.made / "wheels").rename(self.made.parent / "elsewhere")
        (self.made / "wheels").symlink_to(self.made.parent / "elsewhere")

    def missing(self) -> None:
        (self.made / BETA).unlink()

    def bit(self, name: str) -> None:
        data = bytearray((self.made / name).read_bytes())
        data[len(data) // 2] ^= 1
        (self.made / name).write_bytes(data)

    def outside(self) -> None:
        """A sum for a file that is not the bundle's, under a number that is right."""
        secret = self.made.parent / "secret"
        secret.write_text("x")
        line = f"{hashlib.sha256(b'x').hexdigest()}  ../secret\n"
        with (self.made / "SHA256SUMS").open("a") as sums:
            sums.write(line)
        self.number = hashlib.sha256(
            (self.made / "SHA256SUMS").read_bytes()
        ).hexdigest()


@pytest.fixture
def thief(made: Path, tmp_path: Path, machine: Any) -> Thief:
    return Thief(made, machine.number_of(made), tmp_path / "trace")


@pytest.mark.parametrize(
    "steps",
    [
        ["wheel"],
        ["wheel", "sums"],
        ["second_pip"],
        ["second_pip", "sums"],
        ["module"],
        ["link"],
        ["linked_folder"],
        ["missing"],
        ["missing", "sums"],
        ["outside"],
        *([f"bit {name}"] for name in (BETA, "requirements.txt", "README.txt")),
        ["bit SHA256SUMS"],
    ],
    ids=" ".join,
)
def test_a_changed_bundle_ends_with_5_and_nothing_of_it_runs(
    steps: list[str], thief: Thief, made: Path, tmp_path: Path, machine: Any
) -> None:
    for step in steps:
        what, *words = step.split()
        getattr(thief, what)(*words)

    done = machine.install(made, tmp_path / "env", number=thief.number, at=made)

    assert done.returncode == 5, done.stderr
    assert "GLD-M008" in done.stderr
    assert not (tmp_path / "env").exists()
    assert not thief.trace.exists()


def typed(made: Path, number: str, env: Path) -> list[tuple[int, str]]:
    """What site-engineer.md says to type, line by line until one refuses.

    A person compares the first line's answer; so does this.
    """
    page = (ROOT / "docs/site-engineer.md").read_text()
    block = page.split("```\nsha256sum SHA256SUMS")[1].split("```")[0]
    lines = [
        x.split("  #")[0].strip() for x in f"sha256sum SHA256SUMS{block}".splitlines()
    ]
    assert len(lines) == 3
    assert lines[2] == "sh install.sh FOLDER NUMBER"
    found = []
    for line in lines:
        words = [
            {"FOLDER": str(env), "NUMBER": number}.get(w, w) for w in shlex.split(line)
        ]
        done = subprocess.run(
            words, cwd=made, capture_output=True, text=True, check=False,
            env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
        )  # fmt: skip
        refused = done.returncode or (
            line == lines[0] and done.stdout.split()[0] != number
        )
        found.append((int(refused), line))
        if refused:
            break
    return found


def test_what_the_page_says_installs_a_bundle_that_nobody_changed(
    made: Path, tmp_path: Path, thief: Thief
) -> None:
    told = typed(made, thief.number, tmp_path / "env")

    assert [code for code, _ in told] == [0, 0, 0]
    assert (tmp_path / "env/bin/hello").exists()


@pytest.mark.parametrize(
    ("steps", "refused_by"),
    [
        (["installer"], "sha256sum --check --strict SHA256SUMS"),
        (["installer", "sums"], "sha256sum SHA256SUMS"),
        (["wheel", "installer", "sums"], "sha256sum SHA256SUMS"),
    ],
)
def test_a_changed_installer_is_found_before_it_runs(
    steps: list[str], refused_by: str, thief: Thief, made: Path, tmp_path: Path
) -> None:
    for step in steps:
        getattr(thief, step)()

    told = typed(made, thief.number, tmp_path / "env")

    assert told[-1] == (1, refused_by)
    assert not thief.trace.exists()


def test_without_the_number_nothing_is_installed(
    made: Path, tmp_path: Path, machine: Any
) -> None:
    done = machine.install(made, tmp_path / "env", number="")

    assert done.returncode == 2
    assert "NUMBER" in done.stderr
    assert not (tmp_path / "env").exists()


def test_what_lies_where_it_is_started_from_is_not_run(
    made: Path, tmp_path: Path, thief: Thief, machine: Any
) -> None:
    """A folder of downloads, and variables for Python and pip, that say otherwise."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    for name in ("venv.py", "pip.py", "sitecustomize.py"):
        (downloads / name).write_text(thief.code)
    own = {"PYTHONPATH": str(downloads), "PIP_TARGET": str(tmp_path / "else")}

    done = machine.install(made, tmp_path / "env", at=downloads, **own)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "env/bin/hello").exists()
    assert not thief.trace.exists()
