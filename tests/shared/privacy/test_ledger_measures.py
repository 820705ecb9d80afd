"""A turn that measures releases what turns have paid for, and no turn twice."""

from pathlib import Path
from typing import Any

import pytest

from guilder_shared import reports
from guilder_shared.errors import BudgetSpent, IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy.events import gaussian_event, parallel
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.privacy.ledger.book import Book
from guilder_shared.privacy.ledger.grants import NUM_REPEATS
from guilder_shared.reports.export import export
from guilder_verifier.check import check
from guilder_verifier.finding import Finding

KEY = SigningKey.generate()
OFFICER = Officer(SigningKey.generate(), site="bank-a")
EVENT = parallel([gaussian_event(60.0), gaussian_event(50.0)])


def open_ledger(path: Path | None = None) -> Ledger:
    ledger = Ledger.open(path, KEY, site="bank-a", officer=OFFICER.public_hex)
    ledger.admit(OFFICER.budget("people", 3.0, 1e-5, ["d"]))
    rule = OFFICER.rule("r", recipes=["r"], largest_epsilon=3, largest_delta=1e-5)
    ledger.admit(rule)
    return ledger


def reserve(ledger: Ledger) -> str:
    asked: dict[str, Any] = {"server": "https://s", "study_digest": "d" * 64}
    asked |= {"study_name": "s", "dataset": "d", "recipe": "r", "unit": "record"}
    asked |= {"cohort": 2, "study_epsilon": 1.0, "study_delta": 1e-6, "meta": {}}
    return ledger.reserve(
        run_id="run", turn_event=EVENT, num_turns=20, **asked
    ).grant_id


def take(ledger: Ledger, grant: str, turn_no: int, *, measures: bool = False) -> int:
    spent = ledger.spend(grant, turn_no, f"{turn_no:064x}", measures=measures)
    ledger.seal(grant, turn_no, f"{turn_no + 99:064x}")
    return spent.measures


def test_a_measuring_turn_has_the_shares_of_all_turns_before_it() -> None:
    with open_ledger() as ledger:
        grant = reserve(ledger)

        taken = [
            take(ledger, grant, number, measures=number in (3, 4, 9))
            for number in (1, 2, 3, 4, 6, 9)  # numbers may be left out
        ]

    assert taken == [0, 0, 3, 1, 0, 2]


def test_a_turn_begun_again_has_the_same_shares_and_the_next_has_its_own() -> None:
    with open_ledger() as ledger:
        grant = reserve(ledger)
        take(ledger, grant, 1)
        first = ledger.spend(grant, 2, "a" * 64, measures=True)
        again = ledger.spend(grant, 2, "a" * 64, measures=True)
        asked_anew = ledger.spend(grant, 3, "b" * 64, measures=True)

    assert (first.measures, again.measures, again.state) == (2, 2, "again")
    assert asked_anew.measures == 1  # the second turn may still be sealed


def test_what_was_given_up_released_nothing_and_is_there_for_the_next() -> None:
    with open_ledger() as ledger:
        grant = reserve(ledger)
        take(ledger, grant, 1)
        for _ in range(1 + NUM_REPEATS):
            ledger.spend(grant, 2, "a" * 64, measures=True)
        with pytest.raises(BudgetSpent) as raised:
            ledger.spend(grant, 2, "a" * 64, measures=True)

        assert raised.value.error_id == "GLD-B005"

        assert ledger.spend(grant, 3, "b" * 64, measures=True).measures == 3


def test_the_shares_stand_in_the_ledger_after_it_is_opened_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    with open_ledger(path) as ledger:
        grant = reserve(ledger)
        take(ledger, grant, 1)
        ledger.spend(grant, 2, "a" * 64, measures=True)

    with open_ledger(path) as reopened:
        again = reopened.spend(grant, 2, "a" * 64, measures=True)

    assert (again.state, again.measures) == ("again", 2)


@pytest.mark.parametrize("measures", [2, -1, True])
def test_both_verifiers_refuse_more_shares_than_turns_have_paid_for(
    tmp_path: Path, measures: Any
) -> None:
    with open_ledger() as ledger:
        grant = reserve(ledger)
        for number in (1, 2, 3):
            take(ledger, grant, number, measures=number == 3)
        path = reports.write(ledger, tmp_path)
        sound = check(path.read_bytes(), KEY.public_hex)
        entry = ledger._pen.journal.append(  # as a site that holds its key could
            "spend",
            {
                "grant_id": grant,
                "turn_no": 4,
                "attempt": 1,
                "request_hash": "c" * 64,
                "measures": measures,
                "time": ledger.entries()[-1].content()["time"],
            },
        )
        forged = export(ledger)
        book = Book()
        for each in ledger.entries()[:-1]:
            book.apply(each)

    assert reports.verify(path).site == "bank-a"
    assert sound["studies"][0]["protected"] is True
    with pytest.raises(IntegrityError, match="cannot follow"):
        book.apply(entry)
    with pytest.raises(Finding) as found:
        check(forged)
    assert found.value.error_id in ("GLD-I007", "GLD-I013")
