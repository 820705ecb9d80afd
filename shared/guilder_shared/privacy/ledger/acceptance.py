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
from dataclasses import replace

from guilder_shared.errors import BudgetSpent
from guilder_shared.orders import Order
from guilder_shared.privacy.ledger import budgets, refusals
from guilder_shared.privacy.ledger.bodies import Body, is_protected
from guilder_shared.privacy.ledger.filters import MOST_RENYI, ORDERS, Filters
from guilder_shared.privacy.ledger.grants import Grant, read_grant
from guilder_shared.privacy.ledger.pen import Pen
from guilder_shared.privacy.ledger.totals import Totals, totals

UNDECIDED = "0" * 64  # an approval's place while nobody has looked for one


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
        body["protected"] = is_protected(body["turn_event"])
        numbers = zip(ORDERS, _renyi(body), strict=True)
        body["renyi"] = {str(order): number for order, number in numbers}
        body["meta"], body["approval"] = meta, UNDECIDED
        body["grant_id"] = grant_id or secrets.token_hex(16)
        time = pen.now()
        asked = refusals.sound(read_grant, {**body, "time": time})
        if asked.grant_id in book.grants:
            raise refusals.cannot_be("grant_id", asked.grant_id)
        body["approval"] = _permitted(pen, asked, body, time)
        if asked.is_protected:
            _demand_room(pen, replace(asked, approval=body["approval"]), body)
        pen.write("reserve", body, time=time)
        return pen.grant(asked.grant_id).snapshot()


def _permitted(pen: Pen, grant: Grant, body: Body, time: str) -> str:
    """The order that permits a study; raise, and write the refusal, if none does."""
    decisions, site = pen.book.decisions, pen.book.site
    try:
        return decisions.permission(grant.asked(), time, site=site).order_id
    except BudgetSpent as error:
        _refuse(pen, body, error, None)
        raise


def _demand_room(pen: Pen, grant: Grant, body: Body) -> None:
    """Raise, and write the refusal, unless every budget concerned has room."""
    accounts, site = pen.book.accounts, pen.book.site
    named = accounts.budgets_of(grant.dataset)
    if not named:
        raise _refuse(pen, body, refusals.no_budget(site, body), None)
    for budget in named:
        if budget.unit not in (None, grant.unit):
            error = refusals.other_unit(site, grant, budget)
            raise _refuse(pen, body, error, None)
    full = accounts.without_room(grant, Filters.have_room)
    if full is not None:
        left = totals(pen.book, full.name, grant.reserved_at)
        raise _refuse(pen, body, refusals.no_room(site, body, left), left)
    full = accounts.beyond_period(grant)
    if full is not None:
        left = totals(pen.book, full.name, grant.reserved_at)
        raise _refuse(pen, body, refusals.beyond_period(site, grant, left), left)


def _refuse(
    pen: Pen, body: Body, error: BudgetSpent, left: Totals | None
) -> BudgetSpent:
    refusal = refusals.entry(body, error, left)
    if refusals.is_news(refusal, pen.refused):
        pen.write("refuse", refusal)
    return error


def _renyi(body: Body) -> list[float]:
    if not body["protected"]:
        return [0.0] * len(ORDERS)
    from guilder_shared.privacy import accounting

    return [min(r, MOST_RENYI) for r in accounting.renyi(body["turn_event"], ORDERS)]
