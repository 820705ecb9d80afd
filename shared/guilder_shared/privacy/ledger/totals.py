"""A budget's figures, as people compare them: limit, spent, reserved, left.

Computed from a book by anyone who holds the entries; decides nothing, writes nothing.

The mathematics: the figures are those of the pure sum (`filters.py`); the shares in
use of the Rényi filters stand beside them. Crash order: reads only.
"""

from dataclasses import dataclass
from decimal import Decimal

from guilder_shared.privacy.ledger.bodies import stamp
from guilder_shared.privacy.ledger.book import Book
from guilder_shared.privacy.ledger.budgets import Budget
from guilder_shared.privacy.ledger.filters import Cost, exact


@dataclass(frozen=True)
class PeriodTotals:
    """What one period of a budget releases, in the units of its pure sum.

    Attributes:
        begins: Its first second, as entries tell time.
        ends: Its last second.
        epsilon: Most that studies accepted within it add up to.
        taken_epsilon: Of those accepted so far.
        left_epsilon: At least 0; the lifetime may have less.
    """

    begins: str
    ends: str
    epsilon: float
    taken_epsilon: float
    left_epsilon: float


@dataclass(frozen=True)
class Totals:
    """One budget, in the units of its pure sum (the figures people compare).

    Attributes:
        budget: The limit and the datasets.
        spent_epsilon: Of studies with at least one turn spent.
        reserved_epsilon: Of open studies with no turn spent yet.
        left_epsilon: The budget's epsilon without both; at least 0. The Rényi
            filters may have room for more than this.
        spent_delta: As `spent_epsilon`.
        reserved_delta: As `reserved_epsilon`.
        left_delta: Of the half of the budget's delta that the pure sum has.
        renyi_used: For each order in use, the share of its capacity that is taken.
        period: Of the period that the asked time lies in; None: it has none.
    """

    budget: Budget
    spent_epsilon: float
    reserved_epsilon: float
    left_epsilon: float
    spent_delta: float
    reserved_delta: float
    left_delta: float
    renyi_used: dict[int, float]
    period: PeriodTotals | None = None


def totals(book: Book, name: str, time: str | None = None) -> Totals:
    """One budget's figures, from what the entries say.

    Args:
        book: The entries, replayed.
        name: Of the budget.
        time: Whose period is meant; None: that of the newest entry.
    """
    budget = book.budgets[name]
    spent = reserved = Cost()
    for grant in book.grants_of(budget):
        if grant.turns:
            spent += grant.cost()
        else:
            reserved += grant.cost()
    spent += book.accounts.gap(name)
    filters, both = budget.filters, spent + reserved
    zero = Decimal(0)
    used = {f.order: f.used(both) for f in filters.renyi}
    return Totals(
        budget=budget,
        spent_epsilon=float(spent.epsilon),
        reserved_epsilon=float(reserved.epsilon),
        left_epsilon=float(max(filters.epsilon - both.epsilon, zero)),
        spent_delta=float(spent.delta),
        reserved_delta=float(reserved.delta),
        left_delta=float(max(filters.delta - both.delta, zero)),
        renyi_used=used,
        period=_period(book, budget, time or book.time),
    )


def _period(book: Book, budget: Budget, time: str) -> PeriodTotals | None:
    if budget.period is None:
        return None
    first, last = book.accounts.period_of(budget, time)
    taken = book.accounts.taken_in_period(budget, time)
    return PeriodTotals(
        begins=stamp(first),
        ends=stamp(last),
        epsilon=budget.period.epsilon,
        taken_epsilon=float(taken),
        left_epsilon=float(max(exact(budget.period.epsilon) - taken, Decimal(0))),
    )
