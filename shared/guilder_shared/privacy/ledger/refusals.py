"""The ledger's refusals, in words: what, why, and what to do next.

Most functions make one error and raise nothing: `writer.py` decides. No message
holds anything computed from rows.

The mathematics and the crash order are `writer.py`'s: a refusal of a study is
written as an entry before it is answered, a refusal of a turn changes nothing.
"""

import math
from collections.abc import Callable, Set
from typing import TypeVar

import rfc8785

from guilder_shared.errors import BudgetSpent, IntegrityError
from guilder_shared.privacy.ledger.bodies import CANNOT_BE, Body
from guilder_shared.privacy.ledger.budgets import Budget
from guilder_shared.privacy.ledger.grants import Grant, Turn
from guilder_shared.privacy.ledger.totals import Totals

T = TypeVar("T")
MOST = 10_000  # entries for people to read; who insists fills no disk


NAMES = ("run_id", "server", "study_digest", "study_name", "dataset", "unit")


def entry(body: Body, error: BudgetSpent, left: Totals | None) -> Body:
    """What a ledger writes about a study that it refuses.

    Args:
        body: Of the `reserve` entry that was not written.
        error: The refusal, as it is answered.
        left: Of the budget without room; None if none is to blame.
    """
    limit, rest = (None, 0.0) if left is None else (left.budget.epsilon, _left(left))
    if left is not None and left.period is not None and error.error_id == "GLD-B016":
        limit = left.period.epsilon
    return {
        **{name: body[name] for name in (*NAMES, "epsilon", "delta")},
        "reason": error.error_id,
        "budget": None if left is None else left.budget.name,
        "limit": limit,
        "left": rest,
    }


def _left(left: Totals) -> float:
    """Epsilon left in both, the lifetime and the period."""
    if left.period is None:
        return left.left_epsilon
    return min(left.left_epsilon, left.period.left_epsilon)


def without_time(body: Body) -> bytes:
    """A refusal's body as bytes, equal for two that say the same."""
    return rfc8785.dumps({k: v for k, v in body.items() if k != "time"})


def is_news(refusal: Body, said: Set[bytes]) -> bool:
    """Whether a refusal is worth an entry: each once, and at most `MOST` in all.

    Args:
        refusal: From `entry`.
        said: `without_time` of those the ledger holds.
    """
    return without_time(refusal) not in said and len(said) < MOST


def no_budget(site: str, body: Body) -> BudgetSpent:
    """No budget names the dataset that a study asks for (GLD-B001)."""
    return BudgetSpent(
        "GLD-B001",
        f"site {site!r}: no budget covers the dataset {body['dataset']!r} of study "
        f"{body['study_name']!r}",
        why="Rows are read only on a budget's account.",
        fix="Have the officer order a budget that names the dataset.",
    )


def other_unit(site: str, grant: Grant, budget: Budget) -> BudgetSpent:
    """A study that protects another unit than a budget is for (GLD-B019)."""
    return BudgetSpent(
        "GLD-B019",
        f"site {site!r}: study {grant.study_name!r} protects each {grant.unit}; the "
        f"budget {budget.name!r} is for studies that protect each {budget.unit}",
        why="What is charged by one unit bounds nothing for another.",
        fix=f'Set privacy.unit = "{budget.unit}" in the study, or ask the officer.',
    )


def beyond_period(site: str, grant: Grant, left: Totals, near: str) -> BudgetSpent:
    """A study for which the lifetime may have room, but not the period (GLD-B016)."""
    period = left.period
    assert period is not None
    return BudgetSpent(
        "GLD-B016",
        f"site {site!r}: study {grant.study_name!r} needs epsilon {grant.epsilon:g}, "
        f"but {period.left_epsilon:g} of {period.epsilon:g} is left of budget "
        f"{left.budget.name!r} in the period to {period.ends}; {near}; nothing "
        "was read and nothing was sent",
        why="The officer releases a budget's lifetime period by period.",
        fix="Submit it in the next period, or have the officer change the period.",
    )


def no_room(site: str, body: Body, left: Totals, near: str) -> BudgetSpent:
    """No filter of a budget has room for a study (GLD-B003)."""
    budget = left.budget
    fullest = min(left.renyi_used.values(), default=math.inf)
    return BudgetSpent(
        "GLD-B003",
        f"site {site!r}: study {body['study_name']!r} needs epsilon "
        f"{body['epsilon']:g} at delta {body['delta']:g}, but {left.left_epsilon:g} "
        f"of {budget.epsilon:g} and delta {left.left_delta:g} of {budget.delta / 2:g} "
        f"are left in budget {budget.name!r}; {near}; nothing was read and nothing was "
        "sent",
        why=f"No Rényi filter has room either; the emptiest is {fullest:.0%} full.",
        fix="Lower the study's epsilon, or have the officer raise the budget.",
    )


def sound(read: Callable[[Body], T], body: Body) -> T:
    """Read a body before it is written, for what is written cannot be unwritten.

    Raises:
        BudgetSpent: Its numbers cannot be (GLD-B007).
    """
    try:
        return read(body)
    except CANNOT_BE:
        numbers = {name: body.get(name) for name in ("epsilon", "delta", "num_turns")}
        name = str(body.get("study_name") or body.get("name"))
        raise cannot_be(name, numbers) from None


def cannot_be(name: str, found: object) -> BudgetSpent:
    """A study whose numbers no ledger may hold (GLD-B007)."""
    return BudgetSpent(
        "GLD-B007",
        f"{name!r} cannot be written into the ledger: {found}",
        why="Epsilon must be above 0, delta between 0 and 1, turns 1 or more.",
        fix="Correct the study.",
    )


def unknown_grant(site: str, grant_id: str) -> BudgetSpent:
    """A turn names a grant that this ledger did not make (GLD-B002)."""
    return BudgetSpent(
        "GLD-B002",
        f"site {site!r} granted nothing under {grant_id[:32]!r}",
        why="A turn is charged to a grant that this ledger made.",
        fix="Offer the study to this site again.",
    )


def ended(site: str, grant: Grant) -> BudgetSpent:
    """A turn of a study that was closed (GLD-B006)."""
    return BudgetSpent(
        "GLD-B006",
        f"study {grant.study_name!r} has ended at site {site!r}",
        why="What it had not spent was given back to the budget.",
        fix="Submit the study again: a new run gets its own grant.",
    )


def not_covered(site: str, grant: Grant) -> BudgetSpent:
    """A new turn that today's budgets no longer cover (GLD-B008)."""
    return BudgetSpent(
        "GLD-B008",
        f"site {site!r}: the budget of dataset {grant.dataset!r} was lowered below "
        f"what is granted on it; study {grant.study_name!r} takes no further turn",
        why="A budget is what may ever be learnt, whatever was granted before.",
        fix="Have the officer raise the budget, or end a study that spent no turn yet.",
    )


def beyond_plan(site: str, grant: Grant, turn_no: int, first: int) -> BudgetSpent:
    """A turn number that is used up or was never granted (GLD-B004)."""
    return BudgetSpent(
        "GLD-B004",
        f"site {site!r}: turn {turn_no} of study {grant.study_name!r} is not between "
        f"{first} and {grant.num_turns}",
        why="The grant covers its declared turns, each once and in order.",
        fix="Declare more spare_turns in a new study.",
    )


def given_up(grant: Grant, turn: Turn) -> BudgetSpent:
    """A turn that was started too often without a result (GLD-B005)."""
    return BudgetSpent(
        "GLD-B005",
        f"turn {turn.turn_no} of study {grant.study_name!r} was started "
        f"{turn.attempts} times without a result and is given up",
        why="It stays charged; nothing of it left the site.",
        fix="The server asks under the next number, from the spare turns.",
    )


def other_request(grant: Grant, turn_no: int) -> IntegrityError:
    """A charged turn, asked for with other content (GLD-I008)."""
    return IntegrityError(
        "GLD-I008",
        f"turn {turn_no} of study {grant.study_name!r} was charged for another "
        "request than this one",
        why="A turn answers one request, or one charge could pay for two.",
        fix="The server must take the next turn number for a new model.",
    )


def demand_same_plan(grant: Grant, body: Body) -> None:
    """Raise unless a run that is granted already comes with its own numbers.

    Raises:
        IntegrityError: It brings others (GLD-I009).
    """
    plan = (grant.epsilon, grant.delta, grant.turn_event, grant.num_turns)
    asked = (body["epsilon"], body["delta"], body["turn_event"], body["num_turns"])
    if plan == asked and grant.dataset == body["dataset"]:
        return
    raise IntegrityError(
        "GLD-I009",
        f"run {grant.run_id!r} of study {grant.study_name!r} was granted with "
        "another plan than it brings now",
        why="What was accepted cannot be changed by asking again.",
        fix="Submit the study again: a new run gets its own grant.",
    )


def cannot_seal(turn_no: int) -> IntegrityError:
    """A result for a turn that cannot have it (GLD-I010)."""
    return IntegrityError(
        "GLD-I010",
        f"turn {turn_no} cannot be sealed: it was never charged, was given up, or "
        "has another sealed result",
        why="One charge pays for one result.",
        fix="This is a fault in Guilder; please report it.",
    )


def other_officer(found: str, wanted: str) -> BudgetSpent:
    """A ledger whose orders another officer's key signs (GLD-B017)."""
    return BudgetSpent(
        "GLD-B017",
        f"the officer's key in site.toml is {wanted[:16]}…, the ledger obeys "
        f"{found[:16]}…",
        why="Another key decides only once the old one has signed that it does.",
        fix="After a hand-over copy the new officer's officer.pub here; else put the "
        "old file back, or have the officer sign `guilder privacy hand-over` first.",
    )


def other_site(found: str, wanted: str) -> IntegrityError:
    """A ledger file of another site (GLD-I016)."""
    return IntegrityError(
        "GLD-I016",
        f"the ledger belongs to site {found!r}, not to {wanted!r}",
        fix="Point state_dir in site.toml to this site's own folder.",
    )
