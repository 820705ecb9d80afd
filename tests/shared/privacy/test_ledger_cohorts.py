"""Entries about rows: bound once, in order, and nothing but a salted hash in them."""

from pathlib import Path
from typing import Any

import pytest

from guilder_shared.errors import BudgetSpent, IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy.ledger import Grant, Ledger
from guilder_shared.privacy.ledger.book import Book

OFFICER = Officer(SigningKey.generate(), site="bank-a")
ORDERS = [
    OFFICER.budget("patients", 3.0, 1e-5, ["scans"]),
    OFFICER.rule("any", recipes=["r"], largest_epsilon=100, largest_delta=0.5),
]
ONE, OTHER = "a" * 64, "b" * 64


def open_ledger(path: Path | None, key: SigningKey, **options: Any) -> Ledger:
    return Ledger.open(
        path,
        key,
        site="bank-a",
        officer=OFFICER.public_hex,
        orders=ORDERS,
        **options,
    )


@pytest.fixture
def ledger() -> Ledger:
    return open_ledger(None, SigningKey.generate())


def charged(ledger: Ledger) -> Grant:
    grant = ledger.reserve(
        run_id="run-1",
        server="https://server",
        study_digest="d" * 64,
        study_name="risk",
        dataset="scans",
        recipe="r",
        unit="record",
        cohort=2,
        study_epsilon=1.0,
        study_delta=1e-6,
        turn_event={"event": "gaussian", "noise_multiplier": 60.0},
        num_turns=4,
        meta={},
    )
    ledger.spend(grant.grant_id, 1, "h" * 64)
    return grant


def test_a_study_is_bound_to_its_rows_once(ledger: Ledger) -> None:
    grant = charged(ledger)
    ledger.cohort(grant.grant_id, ONE)
    ledger.cohort(grant.grant_id, ONE)

    with pytest.raises(IntegrityError, match="committed already"):
        ledger.cohort(grant.grant_id, OTHER)

    assert ledger.cohort_of(grant.grant_id) == ONE
    assert [e.kind for e in ledger.entries()].count("cohort") == 1


def test_no_study_is_bound_before_it_is_charged(ledger: Ledger) -> None:
    with pytest.raises(BudgetSpent):
        ledger.cohort("0" * 32, ONE)

    grant = charged(ledger)
    book = Book()
    entries = ledger.entries()
    ledger.cohort(grant.grant_id, ONE)
    cohort = ledger.entries()[-1]
    for entry in entries[:-1]:  # all but the charge
        book.apply(entry)
    moved = type(cohort)(
        book.seq + 1,
        cohort.kind,
        cohort.body,
        cohort.prev,
        cohort.hash,
        cohort.signature,
    )

    with pytest.raises(IntegrityError) as raised:
        book.apply(moved)
    assert raised.value.error_id == "GLD-I007"


def test_a_cohort_entry_does_not_time_the_reading_of_rows() -> None:
    now = [1_000_000.0]
    ledger = open_ledger(None, SigningKey.generate(), clock=lambda: now[0])
    grant = charged(ledger)
    now[0] += 500

    ledger.cohort(grant.grant_id, ONE)

    charge, cohort = ledger.entries()[-2:]
    assert cohort.content()["time"] == charge.content()["time"]


def test_a_list_is_stated_once_and_frees_nothing(ledger: Ledger) -> None:
    charged(ledger)
    before = ledger.totals()

    for commitment, in_force in ((ONE, True), (ONE, True), (OTHER, True)):
        ledger.exclude("scans", commitment, in_force=in_force)
    ledger.exclude("scans", OTHER, in_force=False)

    assert ledger.totals() == before
    said = [e.content() for e in ledger.entries() if e.kind == "exclude"]
    assert [s["in_force"] for s in said] == [True, True, False]
    assert set(said[0]) == {"time", "dataset", "commitment", "in_force"}
    assert not ledger.exclusions()["scans"].in_force


def test_a_reopened_ledger_knows_what_was_said(tmp_path: Path) -> None:
    key = SigningKey.generate()
    with open_ledger(tmp_path / "l.db", key) as ledger:
        grant = charged(ledger)
        ledger.cohort(grant.grant_id, ONE)
        ledger.exclude("scans", OTHER, in_force=True)
        said = ledger.exclusions()

    with Ledger.read(tmp_path / "l.db", key) as again:
        assert again.cohort_of(grant.grant_id) == ONE
        assert again.exclusions() == said
