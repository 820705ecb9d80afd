"""Budgets: what the officer lets all studies together take, and in which time.

Data only; `accounts.py` keeps the sums. It knows no study and writes nothing.

The mathematics: the filters are fixed on the lifetime's (epsilon, delta) alone
(`filters.py`). A period releases a part of the lifetime: it is one more limit, on
the pure sum of what is accepted within it, and can only refuse what the filters
would have taken; so it needs no proof of its own.
Crash order: reads only.
"""

import math
from dataclasses import dataclass

from guilder_shared.orders import Order
from guilder_shared.privacy.ledger.bodies import demand
from guilder_shared.privacy.ledger.filters import Filters

DAY_S = 86_400


@dataclass(frozen=True)
class Period:
    """The part of a budget's lifetime that studies may take within some days.

    Attributes:
        days: Its length; the first begins with the budget's first order.
        epsilon: Most that studies accepted within one period add up to.
    """

    days: int
    epsilon: float


@dataclass(frozen=True)
class Budget:
    """What the officer lets all studies together take from some datasets.

    Attributes:
        name: Of the people protected, say "cardholders".
        epsilon: Over all studies, for ever; add/remove of one unit.
        delta: Over all studies; a study's own delta must fit in half of it.
        datasets: Names of the datasets that hold these people.
        unit: The only unit a study may protect here; None: any.
        period: What releases the lifetime bit by bit; None: nothing does.
    """

    name: str
    epsilon: float
    delta: float
    datasets: tuple[str, ...]
    unit: str | None = None
    period: Period | None = None

    @property
    def filters(self) -> Filters:
        """The filters this budget fixes."""
        return Filters.fix(self.epsilon, self.delta)


def ordered(order: Order) -> Budget:
    """The budget that an order of kind "budget" makes.

    Raises:
        ImpossibleError: Its numbers cannot be.
    """
    terms = order.content
    period = terms["period"]
    budget = Budget(
        name=str(terms["name"]),
        epsilon=float(terms["epsilon"]),
        delta=float(terms["delta"]),
        datasets=tuple(map(str, terms["datasets"])),
        unit=terms["unit"],
        period=period and Period(int(period["days"]), float(period["epsilon"])),
    )
    demand(0 < budget.epsilon < math.inf and 0 < budget.delta < 1)
    return budget
