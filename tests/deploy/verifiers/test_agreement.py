"""All verifiers give one verdict, and one id, on sound files and on attacks."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from guilder_shared.reports.export import export

Asked = dict[str, Any]
Files = Any  # of tests/deploy/conftest.py
Verdicts = Callable[..., set[str]]


def put(value: Any, *steps: Any) -> Callable[[Any], None]:
    """A change: `value` at this place."""

    def change(whole: Any) -> None:
        for step in steps[:-1]:
            whole = whole[step]
        whole[steps[-1]] = value

    return change


def of_kind(rows: list[Any], kind: str, number: int = 0) -> Any:
    return [row for row in rows if row["kind"] == kind][number]


def body(kind: str, name: str, value: Any, number: int = 0) -> Callable[[Any], None]:
    """A change: one member of the n-th entry of a kind."""
    return lambda rows: of_kind(rows, kind, number)["body"].__setitem__(name, value)


def drop(kind: str) -> Callable[[Any], None]:
    return lambda rows: rows.remove(of_kind(rows, kind))


def reports_of(found: Any) -> Any:
    return found["reports"]


MADE: dict[str, tuple[str, Callable[[Files], Asked]]] = {
    # sound
    "a report": ("", lambda f: {"raw": f.report}),
    "an export": ("", lambda f: {"raw": f.ledger}),
    "a consortium's report": ("", lambda f: {"raw": f.both.read_bytes()}),
    "a report of no study": ("", lambda f: {"raw": f.empty}),
    "a report beside its ledger": ("", lambda f: {"raw": f.report, "ledger": f.ledger}),
    "a report of a known key": (
        "",
        lambda f: {"raw": f.report, "keys": (f.key.public_hex,)},
    ),
    "a report of a known officer": (
        "",
        lambda f: {"raw": f.report, "officers": (f.officer.public_hex,)},
    ),
    "a consortium of known keys": (
        "",
        lambda f: {
            "raw": f.both.read_bytes(),
            "keys": (f.key.public_hex, f.stranger.public_hex),
        },
    ),
    "a ledger whose receipt never came": ("", lambda f: f.forged(drop("receipt"))),
    # of somebody else
    "a consortium beside one ledger": (
        "GLD-I094",
        lambda f: {"raw": f.both.read_bytes(), "ledger": f.ledger},
    ),
    "another site's report": (
        "GLD-I072",
        lambda f: {"raw": f.others, "keys": (f.key.public_hex,)},
    ),
    "a consortium with a stranger": (
        "GLD-I072",
        lambda f: {"raw": f.both.read_bytes(), "keys": (f.key.public_hex,)},
    ),
    "another officer": (
        "GLD-I092",
        lambda f: {"raw": f.report, "officers": (f.key.public_hex,)},
    ),
    "the ledger of another site": (
        "GLD-I073",
        lambda f: {"raw": f.report, "ledger": f.others_ledger},
    ),
    "a ledger rolled back": (
        "GLD-I074",
        lambda f: {
            "raw": f.ledger,
            "ledger": f.forged(lambda rows: rows.pop())["raw"],
        },
    ),
    "a ledger with another history": (
        "GLD-I074",
        lambda f: {"raw": f.report, "ledger": f.forged(drop("receipt"))["raw"]},
    ),
    "the beginning of a ledger's export": (
        "GLD-I071",
        lambda f: {"raw": f.report, "ledger": f.ledger[: len(f.ledger) // 2]},
    ),
    "a ledger's export of a newer form": (
        "GLD-I070",
        lambda f: {
            "raw": f.report,
            "ledger": f.ledger.replace(b"export-1", b"export-2"),
        },
    ),
    # of another form
    "a newer report": (
        "GLD-I070",
        lambda f: {"raw": f.report.replace(b"report-2", b"report-3")},
    ),
    "an older report": (
        "GLD-I011",
        lambda f: {"raw": f.report.replace(b"report-2", b"report-1")},
    ),
    "a newer export": (
        "GLD-I070",
        lambda f: {"raw": f.ledger.replace(b"export-1", b"export-2")},
    ),
    "a newer consortium": (
        "GLD-I070",
        lambda f: f.together(put("guilder-consortium-2", "schema")),
    ),
    "a newer ledger": ("GLD-I061", lambda f: f.forged(body("ledger", "format", 3))),
    "an older ledger": ("GLD-I060", lambda f: f.forged(body("ledger", "format", 1))),
    "half a report": ("GLD-I071", lambda f: {"raw": f.report[: len(f.report) // 2]}),
    "a report without its newline": ("GLD-I071", lambda f: {"raw": f.report[:-1]}),
    "half an export": ("GLD-I071", lambda f: {"raw": f.ledger[: len(f.ledger) // 2]}),
    "a consortium without its end": (
        "GLD-I071",
        lambda f: {"raw": f.both.read_bytes()[:-9]},
    ),
    "an empty file": ("GLD-I011", lambda f: {"raw": b""}),
    "something else": ("GLD-I011", lambda f: {"raw": b"%PDF-1.7\n"}),
    # changed, not signed
    "an edited epsilon": (
        "GLD-I012",
        lambda f: {"raw": f.report.replace(b'"epsilon":1.5', b'"epsilon":1.4', 1)},
    ),
    "an edited entry": (
        "GLD-I001",
        lambda f: {"raw": f.report.replace(b'"turn_no":1}', b'"turn_no":2}', 1)},
    ),
    "a missing entry": (
        "GLD-I001",
        lambda f: {
            "raw": b"".join(
                line
                for line in f.ledger.splitlines(keepends=True)
                if b'"kind":"receipt"' not in line
            )
        },
    ),
    "a forged seal": (
        "GLD-I012",
        lambda f: {"raw": f.forge.sign(json.loads(f.report), f.stranger)},
    ),
    "a forged entry": (
        "GLD-I003",
        lambda f: {
            "raw": f.forge.export(
                f.forge.chain(f.forge.rows(f.ledger), f.stranger), f.key
            )
        },
    ),
    "an edited study in a consortium": (
        "GLD-I013",
        lambda f: f.together(put(0.5, "studies", 0, "sites", 0, "epsilon")),
    ),
    "an edited report in a consortium": (
        "GLD-I012",
        lambda f: f.together(put("x", "reports", 0, "as_of")),
    ),
    "one site twice": (
        "GLD-I093",
        lambda f: f.together(
            lambda found: reports_of(found).__setitem__(1, reports_of(found)[0])
        ),
    ),
    "metrics measured twice over": (
        "GLD-I007",
        lambda f: f.forged(
            lambda rows: of_kind(rows, "spend", -1)["body"].update(measures=3)
        ),
    ),
    "a report left out of a consortium": (
        "GLD-I013",
        lambda f: f.together(lambda found: reports_of(found).pop()),
    ),
    # signed by a site that lies
    "a lower epsilon": (
        "GLD-I013",
        lambda f: f.signed(put(0.5, "studies", 0, "totals", "epsilon")),
    ),
    "a sentence with a lower epsilon": (
        "GLD-I013",
        lambda f: f.signed(
            lambda r: r["studies"][0]["guarantee"].__setitem__(
                "sentence",
                r["studies"][0]["guarantee"]["sentence"].replace("1.5", "0.5"),
            )
        ),
    ),
    "a sentence that no longer says unprotected": (
        "GLD-I013",
        lambda f: f.signed(put("Well kept.", "studies", 2, "guarantee", "sentence")),
    ),
    "a sentence with another adjacency": (
        "GLD-I013",
        lambda f: f.signed(
            lambda r: r["studies"][0]["guarantee"].__setitem__(
                "sentence",
                r["studies"][3]["guarantee"]["sentence"],
            )
        ),
    ),
    "figures lower than their events": (
        "GLD-I013",
        lambda f: f.signed(put(0.5, "studies", 0, "totals", "recomputed_epsilon")),
    ),
    "a sampled figure far below its events": (
        "GLD-I013",
        lambda f: f.signed(put(0.4, "studies", 1, "totals", "recomputed_epsilon")),
    ),
    "a composed figure below its studies": (
        "GLD-I013",
        lambda f: f.signed(put(0.9, "budgets", 0, "history", 1, "composed")),
    ),
    "another unit": (
        "GLD-I013",
        lambda f: f.signed(put("person", "studies", 0, "guarantee", "unit")),
    ),
    "an order that was not": (
        "GLD-I013",
        lambda f: f.signed(put("board", "studies", 0, "approval", "name")),
    ),
    "a release left out": (
        "GLD-I013",
        lambda f: f.signed(put([], "studies", 0, "releases")),
    ),
    "an unprotected study called protected": (
        "GLD-I013",
        lambda f: f.signed(put(True, "studies", 2, "guarantee", "protected")),
    ),
    "a member too many": (
        "GLD-I091",
        lambda f: f.signed(put("anonymous", "studies", 0, "totals", "note")),
    ),
    "a member too many in a consortium": (
        "GLD-I091",
        lambda f: f.together(put(1, "total")),
    ),
    "an edited order": (
        "GLD-I007",
        lambda f: f.forged(
            lambda rows: of_kind(rows, "order")["body"]["order"].update(epsilon=9)
        ),
    ),
    "no order at all": ("GLD-I007", lambda f: f.forged(drop("order"))),
    "a charge below its event": (
        "GLD-I013",
        lambda f: f.forged(
            lambda rows: of_kind(rows, "reserve")["body"]["renyi"].update({"8": 1e-3})
        ),
    ),
    "a study that promises less": (
        "GLD-I013",
        lambda f: f.forged(body("reserve", "epsilon", 1.0)),
    ),
    "another study under the same digest": (
        "GLD-I013",
        lambda f: f.forged(
            lambda rows: of_kind(rows, "reserve")["body"]["meta"].update(study="{}")
        ),
    ),
    "a turn that was not charged": ("GLD-I007", lambda f: f.forged(drop("spend"))),
    "a turn charged twice": (
        "GLD-I007",
        lambda f: f.forged(
            lambda rows: rows.insert(9, json.loads(json.dumps(of_kind(rows, "spend"))))
        ),
    ),
    "a clock that ran backwards": (
        "GLD-I007",
        lambda f: f.forged(body("spend", "time", "2020-01-01T00:00:00Z")),
    ),
    "an entry of no known kind": (
        "GLD-I007",
        lambda f: f.forged(lambda rows: rows[-1].update(kind="refund")),
    ),
}


@pytest.mark.parametrize("name", list(MADE))
def test_all_verifiers_give_one_verdict(
    made: Files, verdicts: Verdicts, name: str
) -> None:
    wanted, make = MADE[name]

    assert verdicts(**make(made)) == {wanted}


def test_the_last_per_cents_are_a_loss_distributions(
    made: Files, verdicts: Verdicts
) -> None:
    """What only the full command sees: a sampled figure that is a little too low."""
    place = ("studies", 1, "totals", "recomputed_epsilon")
    true = json.loads(made.report)["studies"][1]["totals"]["recomputed_epsilon"]

    assert verdicts(**made.signed(put(true * 0.99, *place))) == {"GLD-I013", ""}


def test_events_that_cost_more_than_was_accepted(
    made: Files, verdicts: Verdicts
) -> None:
    with made.open("bank-a", made.key) as ledger:
        ledger.reserve(
            run_id="r",
            server="s",
            study_digest="d" * 64,
            study_name="loud",
            dataset="loans",
            recipe="tabular-classification",
            unit="record",
            cohort=1,
            study_epsilon=1.0,
            study_delta=1e-6,
            turn_event={"event": "gaussian", "noise_multiplier": 4.0},
            num_turns=8,
            meta={},
        )
        raw = export(ledger)

    assert verdicts(raw) == {"GLD-I014"}
