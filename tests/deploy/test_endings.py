"""How a command ends: a line a person can act on, and an exit code a script can."""

import sqlite3
import sys
from typing import Any

import pytest

from guilder import cli
from guilder_shared.errors import BudgetSpent

SECRET = "4711 SECRET-CELL"


def fails_with(error: BaseException) -> Any:
    def app() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "error_id", "code"),
    [
        (BudgetSpent("GLD-B003", "no room", fix="ask"), "GLD-B003 no room", 4),
        (OSError(28, "No space left on device", "/x/\x1b[2J"), "GLD-R031 /x/?[2J", 1),
        (sqlite3.OperationalError("database or disk is full"), "GLD-R031", 1),
        (ValueError(SECRET), "GLD-R033", 1),
        (KeyError(SECRET), "GLD-R033", 1),
    ],
)
def test_an_error_is_told_in_four_lines_without_traceback_or_cell(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    error_id: str,
    code: int,
) -> None:
    monkeypatch.setattr(cli, "app", fails_with(error))
    monkeypatch.setattr(sys, "argv", ["guilder", "run", "list"])

    with pytest.raises(SystemExit) as caught:
        cli.main()

    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (code, "")
    assert err.startswith(error_id)
    assert len(err.splitlines()) <= 4
    assert "Traceback" not in err
    assert SECRET not in err
    assert "\x1b" not in err


@pytest.mark.parametrize("error", [ValueError("x"), BudgetSpent("GLD-B003", "x")])
def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(cli, "app", fails_with(error))
    monkeypatch.setattr(sys, "argv", ["guilder", "--debug", "run", "list"])

    with pytest.raises(type(error)):
        cli.main()


def test_an_interrupted_command_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", fails_with(KeyboardInterrupt()))

    with pytest.raises(SystemExit) as caught:
        cli.main()

    assert caught.value.code == 130
