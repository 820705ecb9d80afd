"""The running sums of every budget, kept so that one more study is asked for in O(1).

Told of budgets, grants and closings in the order of their entries; writes nothing and
reads no clock. What a sum may hold is `filters.py`'s to say.

The mathematics: a grant counts against every budget that names its dataset now, or
named it at any time since the grant; so neither a new name for a budget nor a dataset
taken off its list frees anything. Sums are exact (decimals and whole grains), so that
what is given back takes no other's cost along. Periods are cut from the time of the
budget's first order on; a study belongs to the one in which it was accepted.
Crash order: learns an entry only after the journal made it durable.
"""

import math
from collections.abc import Callable, Iterable
from decimal import Decimal

from guilder_shared.privacy.ledger.bodies import seconds
from guilder_shared.privacy.ledger.budgets import DAY_S, Budget
from guilder_shared.privacy.ledger.filters import (
    NOTHING,
    ORDERS,
    Cost,
    Filters,
    exact,
)
from guilder_shared.privacy.ledger.grants import Grant


class Accounts:
    """All budgets of one site, and what was taken from each."""

    def __init__(self) -> None:
        self.budgets: dict[str, Budget] = {}
        self._begun: dict[str, int] = {}  # budget name: time of its first order
        self._charged: dict[str, Cost] = {}  # the sum over all that is counted
        self._counted: dict[str, dict[str, Grant]] = {}  # by grant id
        self._by_period: dict[str, dict[int, Decimal]] = {}
        self._gaps: dict[str, Cost] = {}
        self._gap_times: dict[str, list[tuple[str, Decimal]]] = {}

    def put(self, budget: Budget, grants: Iterable[Grant], time: str) -> None:
        """Learn a budget, or another shape of it; O(grants).

        Args:
            budget: Holds from here on, in place of one of the same name.
            grants: All there are so far.
            time: Of the order's entry.
        """
        name = budget.name
        self.budgets[name] = budget
        self._begun.setdefault(name, seconds(time))
        self._charged.setdefault(name, NOTHING)
        self._by_period[name] = {}
        counted = self._counted.setdefault(name, {})
        for grant in counted.values():
            self._add_to_period(name, grant.reserved_at, grant.cost().epsilon)
        for lost_at, epsilon in self._gap_times.get(name, ()):
            self._add_to_period(name, lost_at, epsilon)
        for grant in grants:
            if grant.dataset in budget.datasets:
                self._count(grant, name)

    def withdraw(self, name: str) -> None:
        """Take a budget out of force; what was charged to it stays counted."""
        self.budgets.pop(name, None)

    def charge_gap(self, name: str, epsilon: float, delta: float, time: str) -> None:
        """Charge what was lost; its events are unknown: no Rényi filter holds it.

        When it was spent is unknown too; it counts in the period of its order's entry.
        """
        unknown = [math.inf] * len(ORDERS)
        cost = Cost.of(epsilon, delta, unknown, num_steps=1, num_turns=1)
        self._charged[name] += cost
        self._gaps[name] = self.gap(name) + cost
        self._gap_times.setdefault(name, []).append((time, exact(epsilon)))
        self._add_to_period(name, time, exact(epsilon))

    def gap(self, name: str) -> Cost:
        """What was charged to a budget for entries that were lost."""
        return self._gaps.get(name, NOTHING)

    def charge(self, grant: Grant) -> None:
        """Count a new grant against every budget that names its dataset."""
        for budget in self.budgets_of(grant.dataset):
            self._count(grant, budget.name)

    def settle(self, before: Grant, closed: Grant) -> None:
        """Count a grant that was closed with what it spent alone."""
        change = closed.cost() - before.cost()
        for name, counted in self._counted.items():
            if closed.grant_id in counted:
                counted[closed.grant_id] = closed
                self._charged[name] += change
                self._add_to_period(name, closed.reserved_at, change.epsilon)

    def charged(self, budget: Budget) -> Cost:
        """All that studies have spent or reserved of a budget."""
        return self._charged[budget.name]

    def grants_of(self, budget: Budget) -> list[Grant]:
        """The grants that count against a budget, oldest first."""
        return list(self._counted.get(budget.name, {}).values())

    def budgets_of(self, dataset: str) -> list[Budget]:
        """The budgets that a study on this dataset must fit in, all of them."""
        return [b for b in self.budgets.values() if dataset in b.datasets]

    def period_of(self, budget: Budget, time: str) -> tuple[int, int]:
        """First and last second of the period that `time` lies in.

        `budget` must have one.
        """
        assert budget.period is not None
        length = budget.period.days * DAY_S
        start = self._begun[budget.name] + self._number(budget, time) * length
        return start, start + length - 1

    def taken_in_period(self, budget: Budget, time: str) -> Decimal:
        """Epsilon of all studies accepted in the period that `time` lies in."""
        number = self._number(budget, time)
        return self._by_period[budget.name].get(number, Decimal(0))

    def without_room(
        self, grant: Grant, holds: Callable[[Filters, Cost], bool]
    ) -> Budget | None:
        """The first budget of a new grant whose filters do not hold it as well.

        Args:
            grant: Not counted yet.
            holds: `Filters.have_room` for the writer. A replay takes
                `Filters.hold_sums`, so that no later change to the noise's
                arithmetic makes a written ledger impossible.
        """
        for budget in self.budgets_of(grant.dataset):
            if not holds(budget.filters, self.charged(budget) + grant.cost()):
                return budget
        return None

    def beyond_period(self, grant: Grant) -> Budget | None:
        """The first budget of a new grant whose period has no room for it."""
        for budget in self.budgets_of(grant.dataset):
            if budget.period is None:
                continue
            taken = self.taken_in_period(budget, grant.reserved_at)
            if taken + grant.cost().epsilon > exact(budget.period.epsilon):
                return budget
        return None

    def covers(self, grant: Grant, holds: Callable[[Filters, Cost], bool]) -> bool:
        """Whether today's budgets hold all that is granted on this grant's rows."""
        if not grant.is_protected:
            return True
        budgets = self.budgets_of(grant.dataset)
        return bool(budgets) and all(
            holds(each.filters, self.charged(each)) for each in budgets
        )

    def _count(self, grant: Grant, name: str) -> None:
        counted = self._counted.setdefault(name, {})
        if grant.grant_id not in counted:
            counted[grant.grant_id] = grant
            self._charged[name] += grant.cost()
            self._add_to_period(name, grant.reserved_at, grant.cost().epsilon)

    def _add_to_period(self, name: str, time: str, epsilon: Decimal) -> None:
        budget = self.budgets.get(name)
        if budget is None or budget.period is None:
            return
        number = self._number(budget, time)
        sums = self._by_period[name]
        sums[number] = sums.get(number, Decimal(0)) + epsilon

    def _number(self, budget: Budget, time: str) -> int:
        assert budget.period is not None
        since = seconds(time) - self._begun[budget.name]
        return since // (budget.period.days * DAY_S)
