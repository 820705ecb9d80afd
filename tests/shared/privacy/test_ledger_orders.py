"""The officer decides: what no order permits is refused, and nothing is forgotten."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guilder_shared.errors import BudgetSpent, IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal
from guilder_shared.officer import DAY_S, Officer
from guilder_shared.orders import Order
from guilder_shared.privacy.ledger import Grant, Ledger

KEY = SigningKey.generate()
BEGIN_S = 1_700_000_000.0  # 2023-11-14T22:13:20Z
DIGEST, OTHER = "d" * 64, "e" * 64
EVENT = {"event": "gaussian", "noise_multiplier": 0.5}  # the pure sum decides
UNPROTECTED = {"event": "none-protected"}


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now_s = BEGIN_S

    def __call__(self) -> float:
        return self.now_s

    def pass_days(self, days: float) -> None:
        self.now_s += days * DAY_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def officer(clock: Clock) -> Officer:
    return Officer(SigningKey.generate(), site="bank-a", clock=clock)


@pytest.fixture
def ledger(tmp_path: Path, officer: Officer, clock: Clock) -> Iterator[Ledger]:
    with open_ledger(tmp_path, officer, clock) as opened:
        opened.admit(officer.budget("patients", 3.0, 1e-5, ["scans"]))
        yield opened


def open_ledger(
    folder: Path, officer: Officer, clock: Clock, orders: tuple[Order, ...] = ()
) -> Ledger:
    return Ledger.open(
        folder / "ledger.db",
        KEY,
        site="bank-a",
        officer=officer.public_hex,
        orders=orders,
        clock=clock,
    )


def rule(officer: Officer, **changes: Any) -> Order:
    terms: dict[str, Any] = {
        "recipes": ["r"],
        "largest_epsilon": 2.0,
        "largest_delta": 1e-5,
        "smallest_cohort": 2,
        "units": ["record"],
    }
    return officer.rule("any", **{**terms, **changes})


def approve(officer: Officer, digest: str = DIGEST, **changes: Any) -> Order:
    return officer.approve(digest, "risk", **{"epsilon": 1.0, "delta": 1e-6, **changes})


def reserve(ledger: Ledger, run_id: str = "run-1", **changes: Any) -> Grant:
    asked: dict[str, Any] = {
        "run_id": run_id,
        "server": "https://server",
        "study_digest": DIGEST,
        "study_name": "risk",
        "dataset": "scans",
        "recipe": "r",
        "unit": "record",
        "cohort": 2,
        "study_epsilon": 1.0,
        "study_delta": 1e-6,
        "turn_event": EVENT,
        "num_turns": 4,
        "meta": {},
    }
    return ledger.reserve(**{**asked, **changes})


def refused(action: Any, *arguments: Any, **named: Any) -> str:
    """The id of the error that the action must raise."""
    with pytest.raises((BudgetSpent, IntegrityError)) as raised:
        action(*arguments, **named)
    return raised.value.error_id


def kinds(ledger: Ledger) -> list[str]:
    return [entry.kind for entry in ledger.entries()]


def test_without_an_order_that_permits_it_no_study_begins(ledger: Ledger) -> None:
    assert refused(reserve, ledger) == "GLD-B010"
    assert refused(reserve, ledger, study_digest=OTHER) == "GLD-B010"
    assert refused(reserve, ledger, turn_event=UNPROTECTED) == "GLD-B010"
    assert kinds(ledger) == ["ledger", "order", "refuse", "refuse"]


def test_an_approval_permits_its_digest_alone_and_no_more_than_it_says(
    ledger: Ledger, officer: Officer
) -> None:
    order = approve(officer)
    ledger.admit(order)

    assert refused(reserve, ledger, study_digest=OTHER) == "GLD-B010"
    assert refused(reserve, ledger, study_epsilon=1.1) == "GLD-B010"
    assert refused(reserve, ledger, study_delta=2e-6) == "GLD-B010"
    assert reserve(ledger).approval == order.order_id


@pytest.mark.parametrize(
    "beyond",
    [
        {"recipe": "other"},
        {"unit": "person"},
        {"cohort": 1},
        {"study_epsilon": 2.5},
        {"study_delta": 2e-5},
        {"turn_event": UNPROTECTED},
    ],
)
def test_a_standing_rule_permits_what_is_within_it(
    ledger: Ledger, officer: Officer, beyond: dict[str, Any]
) -> None:
    ledger.admit(rule(officer))

    assert refused(reserve, ledger, **beyond) == "GLD-B010"
    assert reserve(ledger).epsilon == 1


def test_a_rule_and_an_approval_expire_and_what_began_goes_on(
    ledger: Ledger, officer: Officer, clock: Clock
) -> None:
    ledger.admit(rule(officer, days=30))
    ledger.admit(approve(officer, OTHER, days=2))
    grant = reserve(ledger).grant_id

    clock.pass_days(3)
    assert refused(reserve, ledger, "run-2", study_epsilon=3, study_digest=OTHER)
    assert reserve(ledger, "run-2", study_digest=OTHER).epsilon == 1  # by the rule
    clock.pass_days(28)

    assert refused(reserve, ledger, "run-3") == "GLD-B011"
    assert ledger.spend(grant, 1, "h1").state == "new"
    assert ledger.permissions() == []


def test_a_clock_set_back_revives_no_expired_rule(
    ledger: Ledger, officer: Officer, clock: Clock
) -> None:
    ledger.admit(rule(officer, days=1))
    clock.pass_days(2)
    assert refused(reserve, ledger) == "GLD-B011"

    clock.pass_days(-2)

    assert refused(reserve, ledger) == "GLD-B011"


def test_what_is_revoked_takes_no_new_study_and_no_new_turn(
    ledger: Ledger, officer: Officer
) -> None:
    order = approve(officer)
    ledger.admit(order)
    grant = reserve(ledger).grant_id
    ledger.spend(grant, 1, "h1")

    ledger.admit(officer.revoke(order.order_id))

    assert refused(reserve, ledger, "run-2") == "GLD-B012"
    assert refused(ledger.spend, grant, 2, "h2") == "GLD-B012"
    assert ledger.spend(grant, 1, "h1").state == "again"  # it was charged already
    ledger.admit(approve(officer))
    assert reserve(ledger, "run-2").epsilon == 1


def test_only_the_officers_key_decides(
    ledger: Ledger, officer: Officer, clock: Clock
) -> None:
    engineer = Officer(KEY, site="bank-a", clock=clock)
    raised = officer.budget("patients", 9.0, 1e-5, ["scans"])
    edited = replace(raised, content={**raised.content, "epsilon": 50.0})
    elsewhere = Officer(officer._key, site="bank-b", clock=clock)

    for order in (engineer.budget("patients", 9.0, 1e-5, ["scans"]), edited):
        assert refused(ledger.admit, order) == "GLD-B013"
    assert refused(ledger.admit, elsewhere.withdraw("patients")) == "GLD-B018"
    assert ledger.totals()["patients"].budget.epsilon == 3
    assert kinds(ledger) == ["ledger", "order"]


def test_an_old_order_put_back_undoes_nothing(ledger: Ledger, officer: Officer) -> None:
    high = officer.budget("patients", 9.0, 1e-5, ["scans"])
    low = officer.budget("patients", 0.5, 1e-5, ["scans"])
    late, gone = officer.budget("staff", 1, 1e-5, ["x"]), officer.withdraw("staff")
    ledger.admit(low)
    ledger.admit(gone)

    assert refused(ledger.admit, high) == "GLD-B015"
    assert refused(ledger.admit, late) == "GLD-B015"
    assert ledger.admit(low) is False  # the same again is no news
    assert ledger.totals()["patients"].budget.epsilon == 0.5
    assert list(ledger.budgets()) == ["patients"]


def test_another_officer_decides_once_the_old_one_hands_over(
    tmp_path: Path, ledger: Ledger, officer: Officer, clock: Clock
) -> None:
    ledger.shut()
    new = Officer(SigningKey.generate(), site="bank-a", clock=clock)

    assert refused(open_ledger, tmp_path, new, clock) == "GLD-B017"
    handed = officer.hand_over(new.public_hex)
    clock.pass_days(1)
    with open_ledger(tmp_path, new, clock, (handed,)) as opened:
        assert refused(opened.admit, officer.withdraw("patients")) == "GLD-B013"
        assert opened.admit(new.withdraw("patients"))
    assert refused(open_ledger, tmp_path, officer, clock) == "GLD-B017"


def test_a_ledger_begins_with_no_officer_it_was_not_given(
    tmp_path: Path, officer: Officer, clock: Clock
) -> None:
    thief = Officer(SigningKey.generate(), site="bank-a", clock=clock)
    orders = (thief.budget("patients", 99.0, 1e-5, ["scans"]), rule(thief))

    with open_ledger(tmp_path, officer, clock, orders) as ledger:
        assert (ledger.budgets(), ledger.permissions()) == ({}, [])


def test_a_period_releases_a_part_of_the_lifetime(
    ledger: Ledger, officer: Officer, clock: Clock
) -> None:
    ledger.admit(rule(officer))
    ledger.admit(officer.budget("patients", 3.0, 1e-5, ["scans"], period=(30, 1.5)))
    reserve(ledger, "run-1")

    assert refused(reserve, ledger, "run-2") == "GLD-B016"
    clock.pass_days(31)
    assert reserve(ledger, "run-2").epsilon == 1
    clock.pass_days(30)
    assert reserve(ledger, "run-3").epsilon == 1
    clock.pass_days(30)
    assert refused(reserve, ledger, "run-4") == "GLD-B003"  # the lifetime is over

    period = ledger.totals()["patients"].period
    assert period is not None
    assert (period.epsilon, period.taken_epsilon) == (1.5, 0)


def test_a_budget_for_one_unit_pays_for_no_other(
    ledger: Ledger, officer: Officer
) -> None:
    ledger.admit(rule(officer, units=["record", "person"]))
    ledger.admit(officer.budget("patients", 3.0, 1e-5, ["scans"], "person"))

    assert refused(reserve, ledger) == "GLD-B019"
    assert reserve(ledger, unit="person").unit == "person"


@pytest.mark.parametrize(
    "terms",
    [
        (0.5, 1e-5, ["scans"]),
        (3.0, 1e-8, ["scans"]),
        (3.0, 1e-5, ["notes"]),
    ],
)
def test_a_lowered_budget_takes_no_new_turn_but_finishes_a_charged_one(
    ledger: Ledger, officer: Officer, terms: tuple[float, float, list[str]]
) -> None:
    ledger.admit(rule(officer))
    grant = reserve(ledger).grant_id
    ledger.spend(grant, 1, "h1")
    ledger.seal(grant, 1, "s1")
    ledger.spend(grant, 2, "h2")

    ledger.admit(officer.budget("patients", *terms))

    assert refused(ledger.spend, grant, 3, "h3") == "GLD-B008"
    assert ledger.spend(grant, 1, "h1").state == "sealed"
    assert ledger.spend(grant, 2, "h2").state == "again"
    ledger.admit(officer.budget("patients", 3.0, 1e-5, ["scans"]))
    assert ledger.spend(grant, 3, "h3").state == "new"  # raised again, it goes on


def test_public_sizes_are_the_newest_that_were_signed(
    ledger: Ledger, officer: Officer
) -> None:
    first, second = officer.public_size("scans", 100), officer.public_size("scans", 120)
    ledger.admit(second)

    assert refused(ledger.admit, first) == "GLD-B015"
    assert ledger.sizes()["scans"].rows == 120


@pytest.mark.parametrize(("number", "error_id"), [(1, "GLD-I060"), (3, "GLD-I061")])
def test_a_ledger_of_another_format_is_refused_by_name(
    tmp_path: Path, officer: Officer, clock: Clock, number: int, error_id: str
) -> None:
    journal = Journal.open(tmp_path / "ledger.db", KEY)
    head = {"format": number, "site": "bank-a", "public_key": KEY.public_hex}
    journal.append("ledger", {**head, "time": "2023-11-14T22:13:20Z"})
    journal.close()

    assert refused(open_ledger, tmp_path, officer, clock) == error_id


def test_a_grant_whose_approval_was_never_admitted_is_found_though_signed(
    tmp_path: Path, ledger: Ledger, officer: Officer, clock: Clock
) -> None:
    ledger.admit(approve(officer))
    reserve(ledger)
    body = ledger.entries()[-1].content()
    ledger.shut()
    forged = {**body, "run_id": "run-2", "grant_id": "f" * 32, "approval": "0" * 64}
    journal = Journal.open(tmp_path / "ledger.db", KEY)
    journal.append("reserve", forged)
    journal.close()

    assert refused(open_ledger, tmp_path, officer, clock) == "GLD-I007"


def test_each_sealed_turn_commits_to_its_entry_with_a_number_per_server(
    ledger: Ledger, officer: Officer
) -> None:
    ledger.admit(rule(officer))
    first = reserve(ledger).grant_id
    second = reserve(ledger, server="https://other").grant_id
    for grant, turn_no in ((first, 1), (second, 1), (first, 2)):
        ledger.spend(grant, turn_no, "h")
        ledger.seal(grant, turn_no, f"s{turn_no}")

    numbers = [head.head_no for head in ledger.heads("https://server")]
    commitments = {
        head.commitment
        for server in ("https://server", "https://other")
        for head in ledger.heads(server)
    }

    assert numbers == [1, 2]
    assert len(ledger.heads("https://other")) == 1
    assert len(commitments) == 3
