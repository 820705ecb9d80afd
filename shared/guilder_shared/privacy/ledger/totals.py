"""A budget's figures, as people compare them: limit, spent, reserved, left.

Computed from a book by anyone who holds the entries; decides nothing, writes nothing.

The mathematics: the figures are those of the pure sum (`filters.py`); the shares in
use of the Rényi filters stand beside them. Crash order: reads only.
"""

from dataclasses import dataclass
from decimal import Decimal

from guilder_shared.privacy.ledger.book import Book, Budget
from guilder_shared.privacy.ledger.filters import Cost


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
    """

    budget: Budget
    spent_epsilon: float
    reserved_epsilon: float
    left_epsilon: float
    spent_delta: float
    reserved_delta: float
    left_delta: float
    renyi_used: dict[int, float]


def totals(book: Book, name: str) -> Totals:
    """One budget's figures, from what the entries say."""
    budget = book.budgets[name]
    spent = reserved = Cost()
    for grant in book.grants_of(budget):
        if grant.turns:
            spent += grant.cost()
        else:
            reserved += grant.cost()
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
    )
