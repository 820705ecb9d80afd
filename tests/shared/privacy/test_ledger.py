"""The ledger charges before anything happens, once, and never too little."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guilder_shared.errors import BudgetSpent, IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal
from guilder_shared.officer import Officer
from guilder_shared.privacy.ledger import Budget, Grant, Ledger
from guilder_shared.privacy.ledger.grants import NUM_REPEATS

# Loud enough that no Rényi filter of these budgets has room: the pure sum decides.
EVENT = {"event": "gaussian", "noise_multiplier": 0.5}
QUIET = {"event": "gaussian", "noise_multiplier": 60.0}
UNPROTECTED = {"event": "none-protected"}
BUDGET = Budget("patients", 3.0, 1e-5, ("scans", "notes"))
OFFICER = Officer(SigningKey.generate(), site="bank-a")
RULE = OFFICER.rule(
    "any",
    recipes=["r"],
    largest_epsilon=100,
    largest_delta=0.5,
    allow_unprotected=True,
)


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path, key: SigningKey) -> Iterator[Ledger]:
    with open_ledger(path, key) as opened:
        yield opened


def open_ledger(
    path: Path | None, key: SigningKey, *budgets: Budget, **options: Any
) -> Ledger:
    """A ledger in which just these budgets are in force, and a rule permits all."""
    ledger = Ledger.open(
        path,
        key,
        site="bank-a",
        officer=OFFICER.public_hex,
        orders=[RULE],
        **options,
    )
    wanted = {budget.name: budget for budget in budgets or (BUDGET,)}
    for name in ledger.budgets().keys() - wanted.keys():
        ledger.admit(OFFICER.withdraw(name))
    for budget in wanted.values():
        if ledger.budgets().get(budget.name) != budget:
            order = OFFICER.budget(
                budget.name, budget.epsilon, budget.delta, budget.datasets
            )
            ledger.admit(order)
    return ledger


def reserve(ledger: Ledger, run_id: str = "run-1", **changes: Any) -> Grant:
    asked: dict[str, Any] = {
        "run_id": run_id,
        "server": "https://server",
        "study_digest": "d" * 64,
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


def test_the_same_run_asked_twice_is_one_grant(ledger: Ledger) -> None:
    first = reserve(ledger)
    num_entries = len(ledger.entries())

    second = reserve(ledger)

    assert second == first
    assert len(ledger.entries()) == num_entries
    assert reserve(ledger, "run-2").grant_id != first.grant_id


@pytest.mark.parametrize(
    "change",
    [
        {"num_turns": 5},
        {"study_epsilon": 2.0},
        {"study_delta": 2e-6},
        {"turn_event": QUIET},
        {"dataset": "notes"},
    ],
)
def test_a_granted_run_with_another_plan_is_refused(
    ledger: Ledger, change: dict[str, Any]
) -> None:
    reserve(ledger)

    assert refused(reserve, ledger, **change) == "GLD-I009"


def test_a_refusal_names_site_study_need_left_and_limit(ledger: Ledger) -> None:
    reserve(ledger, "run-1", study_epsilon=1.0)

    with pytest.raises(BudgetSpent) as raised:
        reserve(ledger, "run-2", study_epsilon=2.5)

    assert raised.value.error_id == "GLD-B003"
    assert raised.value.exit_code == 4
    for part in ("'bank-a'", "'risk'", "epsilon 2.5", "2 of 3", "nothing was read"):
        assert part in raised.value.what


def test_a_refusal_is_an_entry_written_once(ledger: Ledger) -> None:
    for _ in range(3):
        assert refused(reserve, ledger, study_epsilon=3.5) == "GLD-B003"

    refusals = [e.content() for e in ledger.entries() if e.kind == "refuse"]

    assert len(refusals) == 1
    assert refusals[0]["epsilon"] == 3.5
    assert refusals[0]["left"] == 3


def test_a_dataset_without_a_budget_is_refused(ledger: Ledger) -> None:
    assert refused(reserve, ledger, dataset="other") == "GLD-B001"


@pytest.mark.parametrize(
    "change",
    [
        {"num_turns": 0},
        {"study_epsilon": 0.0},
        {"study_epsilon": float("inf")},
        {"study_delta": float("nan")},
        {"turn_event": UNPROTECTED, "num_turns": -1},
        {"turn_event": UNPROTECTED, "study_delta": 1.0},
    ],
)
def test_numbers_that_cannot_be_are_refused_before_they_are_written(
    path: Path, key: SigningKey, change: dict[str, Any]
) -> None:
    with open_ledger(path, key) as ledger:
        assert refused(reserve, ledger, **change) == "GLD-B007"
        assert reserve(ledger, grant_id="a" * 32).grant_id == "a" * 32
        assert refused(reserve, ledger, "run-2", grant_id="a" * 32) == "GLD-B007"

    open_ledger(path, key).shut()  # and the ledger opens as before


def test_a_raised_budget_admits_what_was_refused(path: Path, key: SigningKey) -> None:
    with open_ledger(path, key) as ledger:
        assert refused(reserve, ledger, study_epsilon=4.0) == "GLD-B003"
    raised = Budget("patients", 4.0, 1e-5, ("scans",))

    with open_ledger(path, key, raised) as ledger:
        assert reserve(ledger, study_epsilon=4.0).epsilon == 4
        said = [e.content()["order"]["say"] for e in ledger.entries()[1:3]]
        assert said == ["rule", "budget"]


@pytest.mark.parametrize(
    "later",
    [
        Budget("renamed", 3.0, 1e-5, ("scans", "notes")),
        Budget("patients", 3.0, 1e-5, ("notes",)),
    ],
)
def test_editing_the_budgets_lines_frees_nothing(
    path: Path, key: SigningKey, later: Budget
) -> None:
    with open_ledger(path, key) as ledger:
        grant = reserve(ledger, study_epsilon=2.5)
        ledger.spend(grant.grant_id, 1, "h1")

    with open_ledger(path, key, later) as ledger:
        assert refused(reserve, ledger, "run-2", dataset="notes") == "GLD-B003"
        assert sum(t.spent_epsilon for t in ledger.totals().values()) == 2.5


def test_a_dataset_in_two_budgets_needs_room_in_both(
    path: Path, key: SigningKey
) -> None:
    tight = Budget("staff", 0.5, 1e-5, ("scans",))

    with open_ledger(path, key, BUDGET, tight) as ledger:
        assert refused(reserve, ledger) == "GLD-B003"
        assert reserve(ledger, dataset="notes").epsilon == 1


def test_quiet_studies_go_on_past_the_sum_of_their_epsilons(ledger: Ledger) -> None:
    for number in range(6):
        reserve(ledger, f"run-{number}", turn_event=QUIET, study_epsilon=1.0)

    totals = ledger.totals()["patients"]

    assert totals.reserved_epsilon == 6 > totals.budget.epsilon
    assert totals.left_epsilon == 0
    assert min(totals.renyi_used.values()) < 1


def test_an_unprotected_study_takes_nothing_and_says_so(ledger: Ledger) -> None:
    grant = reserve(ledger, turn_event=UNPROTECTED, study_epsilon=50.0)
    ledger.spend(grant.grant_id, 1, "h1")

    assert not grant.is_protected
    assert ledger.totals()["patients"].left_epsilon == 3


def test_a_turn_is_new_then_again_then_sealed(ledger: Ledger) -> None:
    grant = reserve(ledger).grant_id

    first = ledger.spend(grant, 1, "h1")
    again = ledger.spend(grant, 1, "h1")
    ledger.seal(grant, 1, "s1")
    sealed = ledger.spend(grant, 1, "h1")

    assert (first.state, first.attempt) == ("new", 1)
    assert (again.state, again.attempt) == ("again", 2)
    assert (sealed.state, sealed.sealed_sha256) == ("sealed", "s1")


def test_a_turn_that_never_seals_is_given_up_and_stays_charged(
    path: Path, key: SigningKey
) -> None:
    with open_ledger(path, key) as ledger:
        grant = reserve(ledger).grant_id
        for _ in range(1 + NUM_REPEATS):
            ledger.spend(grant, 1, "h1")

    with open_ledger(path, key) as ledger:
        assert refused(ledger.spend, grant, 1, "h1") == "GLD-B005"
        assert refused(ledger.spend, grant, 1, "h1") == "GLD-B005"
        assert refused(ledger.seal, grant, 1, "s1") == "GLD-I010"
        assert ledger.spend(grant, 2, "h2").state == "new"
        assert [e.kind for e in ledger.entries()].count("give-up") == 1
        found = ledger.find(grant)

    assert found is not None
    assert len(found.turns) == 2


def test_the_same_turn_for_another_request_is_refused(ledger: Ledger) -> None:
    grant = reserve(ledger).grant_id
    ledger.spend(grant, 1, "h1")

    assert refused(ledger.spend, grant, 1, "h2") == "GLD-I008"
    ledger.seal(grant, 1, "s1")
    assert refused(ledger.spend, grant, 1, "h2") == "GLD-I008"


def test_turn_numbers_only_grow_and_end_with_the_plan(ledger: Ledger) -> None:
    grant = reserve(ledger, num_turns=4).grant_id
    ledger.spend(grant, 1, "h1")

    ledger.spend(grant, 3, "h3")  # the site never saw the request for turn 2

    assert refused(ledger.spend, grant, 2, "h2") == "GLD-B004"
    assert refused(ledger.spend, grant, 0, "h0") == "GLD-B004"
    assert refused(ledger.spend, grant, 5, "h5") == "GLD-B004"
    assert ledger.spend(grant, 4, "h4").state == "new"


def test_a_grant_this_ledger_never_made_charges_nothing(ledger: Ledger) -> None:
    for action in (ledger.close, lambda g: ledger.spend(g, 1, "h")):
        assert refused(action, "f" * 32) == "GLD-B002"
    assert refused(ledger.seal, "f" * 32, 1, "s") == "GLD-B002"


def test_a_second_result_for_one_charge_is_refused(ledger: Ledger) -> None:
    grant = reserve(ledger).grant_id

    assert refused(ledger.seal, grant, 1, "s1") == "GLD-I010"
    ledger.spend(grant, 1, "h1")
    ledger.seal(grant, 1, "s1")
    ledger.seal(grant, 1, "s1")

    assert refused(ledger.seal, grant, 1, "s2") == "GLD-I010"


def test_a_receipt_for_other_bytes_is_ignored(ledger: Ledger) -> None:
    grant = reserve(ledger).grant_id
    ledger.spend(grant, 1, "h1")

    assert not ledger.receipt(grant, 1, "s1")
    ledger.seal(grant, 1, "s1")
    assert not ledger.receipt(grant, 1, "s2")
    assert ledger.receipt(grant, 1, "s1")
    assert ledger.receipt(grant, 1, "s1")

    assert [e.kind for e in ledger.entries()].count("receipt") == 1


@pytest.mark.parametrize(("num_spent", "left"), [(0, 3.0), (1, 2.0), (4, 2.0)])
def test_closing_frees_a_study_only_if_it_spent_no_turn(
    ledger: Ledger, num_spent: int, left: float
) -> None:
    grant = reserve(ledger)
    for number in range(1, num_spent + 1):
        ledger.spend(grant.grant_id, number, "h")

    ledger.close(grant.grant_id)
    ledger.close(grant.grant_id)

    totals = ledger.totals()["patients"]
    assert totals.left_epsilon == left
    assert totals.reserved_epsilon == 0
    capacity = next(f.capacity for f in BUDGET.filters.renyi if f.order == 16)
    divergence = 16 / (2 * 0.5**2)  # of one Gaussian turn at order 16
    assert totals.renyi_used[16] == pytest.approx(num_spent * divergence / capacity)
    assert refused(ledger.spend, grant.grant_id, 5, "h") in {"GLD-B006", "GLD-B004"}


def test_a_closed_study_takes_no_further_turn(ledger: Ledger) -> None:
    grant = reserve(ledger).grant_id
    ledger.spend(grant, 1, "h1")
    ledger.close(grant)

    assert refused(ledger.spend, grant, 2, "h2") == "GLD-B006"


def test_a_clock_that_runs_backwards_changes_nothing(
    path: Path, key: SigningKey
) -> None:
    times = iter(range(1_700_000_000, 0, -86_400))
    with open_ledger(path, key, clock=lambda: float(next(times))) as ledger:
        grant = reserve(ledger).grant_id
        assert ledger.spend(grant, 1, "h1").state == "new"
        stamps = [entry.content()["time"] for entry in ledger.entries()]

    with open_ledger(path, key) as ledger:
        assert ledger.spend(grant, 1, "h1").state == "again"
    assert stamps == sorted(stamps)
    assert set(stamps) == {"2023-11-14T22:13:20Z"}


def test_a_reader_sees_what_the_writer_wrote(
    path: Path, key: SigningKey, ledger: Ledger
) -> None:
    grant = reserve(ledger)
    ledger.spend(grant.grant_id, 1, "h1")

    with Ledger.read(path, key) as reader:
        assert reader.totals() == ledger.totals()
        assert reader.grants() == ledger.grants()
        with pytest.raises(IntegrityError):
            reader.spend(grant.grant_id, 2, "h2")


def test_the_ledger_of_another_name_is_refused(path: Path, key: SigningKey) -> None:
    open_ledger(path, key).shut()

    other: Any = {"site": "bank-b", "officer": OFFICER.public_hex}
    assert refused(Ledger.open, path, key, **other) == "GLD-I016"


def test_an_entry_that_cannot_be_is_found_though_it_is_signed(
    path: Path, key: SigningKey
) -> None:
    with open_ledger(path, key) as ledger:
        grant = reserve(ledger).grant_id
    journal = Journal.open(path, key)
    charge = {"grant_id": grant, "turn_no": 9, "attempt": 1, "request_hash": "h"}
    journal.append("spend", {**charge, "time": ""})
    journal.close()

    assert refused(open_ledger, path, key) == "GLD-I007"
