"""Whether a study may begin: an officer's permission, and room in every budget.

Decides and writes `order`, `reserve` and `refuse` through a `Pen`; knows no rows.

The mathematics: a study is accepted if, beside an order that covers it, `filters.py`
has room for everything charged and reserved plus its whole schedule (spare turns
included) in every budget that names its dataset, and the budget's period has room for
its epsilon. Unit and adjacency are the study's, and the budget's if it names one; the
event, the number of turns and every other number here are public.
Crash order: the decision and its entry have one time and one lock; the entry is
durable before anybody is answered.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

from guilder_shared.errors import BudgetSpent
from guilder_shared.orders import Order
from guilder_shared.privacy.ledger import budgets, refusals
from guilder_shared.privacy.ledger.bodies import Body, is_protected
from guilder_shared.privacy.ledger.filters import MOST_RENYI, ORDERS, Filters
from guilder_shared.privacy.ledger.grants import Grant, read_grant
from guilder_shared.privacy.ledger.pen import Pen
from guilder_shared.privacy.ledger.totals import Totals, totals

UNDECIDED = "0" * 64  # an approval's place while nobody has looked for one


@dataclass(frozen=True)
class Judged:
    """What a ledger says to a study.

    Attributes:
        error: The refusal; None if it is accepted.
        left: Of the budget or period without room; None if none is to blame.
        approval: The order that permits it; empty if it is refused.
    """

    error: BudgetSpent | None = None
    left: Totals | None = None
    approval: str = ""


def admit(pen: Pen, order: Order) -> bool:
    """Write an officer's order; False if it stands in the ledger already.

    Raises:
        BudgetSpent: As `Decisions.demand_admissible`, or its numbers cannot be
            (GLD-B007). Nothing was written.
    """
    with pen.writing() as book:
        if order.order_id in book.decisions.admitted:
            return False
        book.decisions.demand_admissible(order, book.site)
        if order.say == "budget":
            refusals.sound(lambda _: budgets.ordered(order), dict(order.content))
        if order.say == "gap" and order.content["budget"] not in book.budgets:
            raise refusals.cannot_be(str(order.content["budget"]), "no such budget")
        pen.write("order", {"order": order.content, "signature": order.signature})
        return True


def admit_all(pen: Pen, orders: Iterable[Order]) -> list[BudgetSpent]:
    """Admit orders, the oldest first; those refused are left out and told."""
    told = []
    for order in sorted(orders, key=lambda each: each.serial):
        try:
            admit(pen, order)
        except BudgetSpent as error:
            told.append(error)
    return told


def reserve(pen: Pen, body: Body, *, meta: Body, grant_id: str | None) -> Grant:
    """Set aside a study's whole schedule; see `Ledger.reserve`."""
    with pen.writing() as book:
        run = (body["server"], body["run_id"], body["study_digest"])
        old = book.granted(*run)
        if old is not None:
            refusals.demand_same_plan(old, body)
            return old.snapshot()
        asked = _asked(pen, body, meta=meta, grant_id=grant_id)
        judged = _judge(pen, asked, body)
        if judged.error is not None:
            refusal = refusals.entry(body, judged.error, judged.left)
            if refusals.is_news(refusal, pen.refused):
                pen.write("refuse", refusal)
            raise judged.error
        body["approval"] = judged.approval
        pen.write("reserve", body, time=asked.reserved_at)
        return pen.grant(asked.grant_id).snapshot()


def would(pen: Pen, body: Body, *, permitted: bool) -> Judged:
    """What `reserve` would answer now; nothing is written.

    Args:
        pen: Of the ledger; it may be open for reading.
        body: As for `reserve`.
        permitted: As if an order permitted it, so that room alone decides.
    """
    with pen.writing():
        asked = _asked(pen, body, meta={}, grant_id=None)
        if not permitted:
            return _judge(pen, asked, body)
        return _room(pen, asked, body) if asked.is_protected else Judged()


def _asked(pen: Pen, body: Body, *, meta: Body, grant_id: str | None) -> Grant:
    """Complete a body with what is computed from it; the grant it would make."""
    body["protected"] = is_protected(body["turn_event"])
    numbers = zip(ORDERS, _renyi(body), strict=True)
    body["renyi"] = {str(order): number for order, number in numbers}
    body["meta"], body["approval"] = meta, UNDECIDED
    body["grant_id"] = grant_id or secrets.token_hex(16)
    asked = refusals.sound(read_grant, {**body, "time": pen.now()})
    if asked.grant_id in pen.book.grants:
        raise refusals.cannot_be("grant_id", asked.grant_id)
    return asked


def _judge(pen: Pen, asked: Grant, body: Body) -> Judged:
    """An officer's permission first, then room in every budget."""
    decisions, site = pen.book.decisions, pen.book.site
    time = asked.reserved_at
    try:
        order_id = decisions.permission(asked.asked(), time, site=site).order_id
    except BudgetSpent as error:
        return Judged(error)
    if not asked.is_protected:
        return Judged(approval=order_id)
    return _room(pen, replace(asked, approval=order_id), body)


def _room(pen: Pen, grant: Grant, body: Body) -> Judged:
    accounts, site = pen.book.accounts, pen.book.site
    named = accounts.budgets_of(grant.dataset)
    if not named:
        return Judged(refusals.no_budget(site, body))
    for budget in named:
        if budget.unit not in (None, grant.unit):
            return Judged(refusals.other_unit(site, grant, budget))
    full = accounts.without_room(grant, Filters.have_room)
    if full is not None:
        left = totals(pen.book, full.name, grant.reserved_at)
        near = _nearest(grant, left.left_epsilon, left.left_delta)
        return Judged(refusals.no_room(site, body, left, near), left)
    full = accounts.beyond_period(grant)
    if full is not None:
        left = totals(pen.book, full.name, grant.reserved_at)
        assert left.period is not None
        near = _nearest(grant, left.period.left_epsilon, grant.delta)
        return Judged(refusals.beyond_period(site, grant, left, near), left)
    return Judged(approval=grant.approval)


def _nearest(grant: Grant, epsilon: float, delta: float) -> str:
    """The nearest plans that would fit into what is left, in words."""
    if epsilon <= 0 or delta <= 0:
        return "no plan fits"
    if delta < grant.delta:
        most = min(epsilon, grant.epsilon)
        return (
            f"nearest that fits: delta {delta:g}, at epsilon {most:g} with more noise"
        )
    from guilder_shared.privacy import planning

    turns = planning.turns_that_fit(
        grant.turn_event, grant.num_turns, epsilon=epsilon, delta=grant.delta
    )
    fewer = f", or {turns} of {grant.num_turns} turns with this noise" if turns else ""
    return f"nearest that fits: epsilon {epsilon:g} with more noise{fewer}"


def _renyi(body: Body) -> list[float]:
    if not body["protected"]:
        return [0.0] * len(ORDERS)
    from guilder_shared.privacy import accounting

    return [min(r, MOST_RENYI) for r in accounting.renyi(body["turn_event"], ORDERS)]
