"""A settings file that is not where a command looks: which option names another."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guilder.cli import app
from guilder_shared.settings.mistakes import FileError

STUDY = str(Path(__file__).parents[1] / "small.toml")
SERVER = [
    ["server", "start"],
    ["server", "check"],
    ["server", "install-service"],
    ["server", "sites"],
    ["server", "invite", "bank-a"],
    ["server", "revoke", "bank-a"],
    ["server", "remove", "bank-a"],
    ["server", "log"],
    ["run", "submit", STUDY],
    ["run", "watch", "run-1"],
    ["run", "list"],
    ["run", "resume", "run-1"],
    ["run", "stop", "run-1"],
]
SITE = [
    ["client", "start"],
    ["client", "check"],
    ["client", "install-service"],
    ["client", "pause"],
    ["client", "leave"],
    ["privacy", "report"],
    ["privacy", "budget"],
]


@pytest.mark.parametrize(
    ("words", "option"),
    [(w, "--server") for w in SERVER] + [(w, "--site") for w in SITE],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else value,
)
def test_a_file_that_is_not_there_is_told_with_the_option_that_names_it(
    words: list[str], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(app, words)

    assert isinstance(done.exception, FileError), done.output
    assert done.exception.error_id == "GLD-C001"
    assert f"or name another: {option} FILE" in done.exception.fix


def test_an_argument_is_told_without_an_option(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.toml")

    done = CliRunner().invoke(app, ["run", "submit", missing])

    assert isinstance(done.exception, FileError)
    assert done.exception.fix == "Check the path and who may read it."


def test_a_person_sees_what_and_fix(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "guilder", "run", "list"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 2
    first, fix = done.stderr.splitlines()
    assert first.startswith("GLD-C001 server/server.toml: cannot be read")
    assert fix.endswith("or name another: --server FILE.")
