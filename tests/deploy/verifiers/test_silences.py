"""Excused and forgetful servers: no verifier takes a report that hides one."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from guilder_shared import reports
from guilder_verifier.__main__ import text
from guilder_verifier.check import check

Verdicts = Callable[..., set[str]]
Change = Callable[[Any], Any]


def silences(report: Any) -> Any:
    return report["silences"]


def test_the_servers_are_there(written: Any) -> None:
    told = silences(json.loads(written.report.read_bytes()))

    assert [each["server"] for each in told] == [
        "https://away",
        "https://gone",
        "https://s",
    ]
    (lost,) = told[2]["forgot"]
    assert (lost["signed"], lost["remembered"]) == (69, 3)


def test_all_verifiers_name_them(written: Any, page: Any) -> None:
    raw = written.report.read_bytes()
    told = silences(json.loads(raw))
    first, second = reports.verify(written.report), check(raw)

    third = page.said(raw)

    assert list(first.silences) == second["silences"] == third["silences"] == told
    for words in (first.to_text(), text(second)):
        assert words.count("EXCUSED") == 2
        assert words.count("FORGOT") == 1


@pytest.mark.parametrize(
    ("change", "error_id"),
    [
        (lambda report: report.pop("silences"), "GLD-I013"),
        (lambda report: silences(report).pop(), "GLD-I013"),
        (lambda report: silences(report)[2]["forgot"].clear(), "GLD-I013"),
        (lambda report: silences(report)[0]["excused"][0].update(since=""), "GLD-I013"),
        (lambda report: silences(report)[0].update(kind=1), "GLD-I091"),
    ],
)
def test_a_report_that_hides_or_changes_one_is_found_though_it_is_signed(
    written: Any, forge: Any, verdicts: Verdicts, change: Change, error_id: str
) -> None:
    report = json.loads(written.report.read_bytes())
    change(report)

    assert verdicts(forge.sign(report, written.key)) == {error_id}


@pytest.mark.parametrize(
    "change",
    [
        {"head_no": 68},  # not the newest that it signed for
        {"remembers": 69},  # nothing is forgotten
        {"remembers": -1},
        {"remembers": True},
        {"server": "https://gone"},  # it never signed
        {"head_no": 69.5},
    ],
)
def test_an_entry_that_no_server_could_have_caused_is_none(
    written: Any, forge: Any, verdicts: Verdicts, change: dict[str, Any]
) -> None:
    rows = forge.rows(written.ledger.read_bytes())
    (row,) = [row for row in rows if row["kind"] == "forgot"]
    row["body"].update(change)

    made = forge.chain(rows, written.key)
    assert verdicts(forge.export(made, written.key)) == {"GLD-I007"}


def test_one_loss_is_stated_once(written: Any, forge: Any, verdicts: Verdicts) -> None:
    rows = forge.rows(written.ledger.read_bytes())
    rows.append(next(dict(row) for row in rows if row["kind"] == "forgot"))
    rows[-1]["body"] = {**rows[-1]["body"], "time": rows[-2]["body"]["time"]}

    made = forge.chain(rows, written.key)
    assert verdicts(forge.export(made, written.key)) == {"GLD-I007"}
