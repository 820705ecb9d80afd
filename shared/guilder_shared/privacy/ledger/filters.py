"""How much a budget (epsilon, delta) has room for: parallel filters over studies.

Cached numbers in, a yes or no out; this module computes no privacy loss itself,
keeps nothing and knows no site.

The mathematics. Several studies are chosen adaptively and run at the same time on
the same people (add/remove adjacency, one unit). A filter is a bound, fixed when
the budget is made, on a quantity that adds up under such composition:

- the pure sum: studies that are each (epsilon_i, delta_i)-DP, up to a sum of
  (epsilon, delta / 2);
- a Rényi filter of order a: the sum of Rényi divergences of order a, up to the
  capacity r with r + log((a - 1) / a) - (log d + log a) / (a - 1) = epsilon, where
  d is the filter's share of the other delta / 2.

A study is accepted if after it at least one filter still holds everything. The
union bound over all filters gives (epsilon, delta). A study's own (epsilon, delta)
includes what the noise's arithmetic adds to it; the Rényi filters set aside
`ARITHMETIC` of their epsilon and delta for that, and have no room once all steps
together need more. Sources: Feldman and Zrnic
2021 (Rényi filters); Haney et al. 2023 (concurrent adaptive composition); Canonne,
Kamath and Steinke 2020, proposition 12 (the conversion).

Crash order: nothing here is durable; `writer.py` writes before it answers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

ORDERS = (6, 8, 10, 12, 16, 24, 32, 64)
# Above any capacity (epsilon is at most 1,000), so that no sum becomes inf - inf.
MOST_RENYI = 1e6
GRAIN = 2.0**-40  # nats
ARITHMETIC = 0.01  # the share of epsilon and delta kept for `noise.residue`


@dataclass(frozen=True)
class Cost:
    """What studies take from each filter; costs add and subtract.

    Attributes:
        epsilon: From the pure sum, exact: the decimals that a person typed.
        delta: From the pure sum, exact.
        renyi: Rényi divergence at each of `ORDERS`, in `GRAIN` nats, rounded up. Whole
            numbers, so that a study that is given back takes no other's cost along.
        num_steps: Noised sums released.
    """

    epsilon: Decimal = Decimal(0)
    delta: Decimal = Decimal(0)
    renyi: tuple[int, ...] = (0,) * len(ORDERS)
    num_steps: int = 0

    @classmethod
    def of(
        cls,
        epsilon: float,
        delta: float,
        renyi: Sequence[float],
        *,
        num_steps: int,
        num_turns: int,
    ) -> "Cost":
        """The cost of a study of which `num_turns` turns count.

        With no turn at all nothing was learnt from the data and the cost is zero;
        with one or more the pure sum takes the whole study, because a study's
        (epsilon, delta) says nothing about its parts, and the Rényi filters take
        the turns alone.

        Args:
            epsilon: Of the whole study.
            delta: Of the whole study.
            renyi: Of one turn, at `ORDERS`; not finite counts as `MOST_RENYI`.
            num_steps: Noised sums in one turn.
            num_turns: 0 or more.
        """
        assert len(renyi) == len(ORDERS), renyi
        if num_turns == 0:
            return NOTHING
        bounded = (
            min(r, MOST_RENYI) if math.isfinite(r) else MOST_RENYI for r in renyi
        )
        all_renyi = tuple(math.ceil(r / GRAIN) * num_turns for r in bounded)
        return cls(exact(epsilon), exact(delta), all_renyi, num_steps * num_turns)

    def __add__(self, other: "Cost") -> "Cost":
        renyi = tuple(a + b for a, b in zip(self.renyi, other.renyi, strict=True))
        return Cost(
            self.epsilon + other.epsilon,
            self.delta + other.delta,
            renyi,
            self.num_steps + other.num_steps,
        )

    def __sub__(self, other: "Cost") -> "Cost":
        renyi = tuple(a - b for a, b in zip(self.renyi, other.renyi, strict=True))
        return Cost(
            self.epsilon - other.epsilon,
            self.delta - other.delta,
            renyi,
            self.num_steps - other.num_steps,
        )


NOTHING = Cost()


@dataclass(frozen=True)
class RenyiFilter:
    """The filter of one order.

    Attributes:
        order: One of `ORDERS`.
        epsilon: The budget's.
        delta: Its share of the budget's delta.
        capacity: The largest sum of Rényi divergences of this order, in nats.
    """

    order: int
    epsilon: float
    delta: float
    capacity: float

    def used(self, total: Cost) -> float:
        """The share of the capacity that `total` takes."""
        return total.renyi[ORDERS.index(self.order)] / (self.capacity / GRAIN)

    def holds_sum(self, total: Cost) -> bool:
        """Say whether the divergences of `total` alone are within the capacity."""
        return total.renyi[ORDERS.index(self.order)] <= self.capacity / GRAIN

    def has_room(self, total: Cost) -> bool:
        """Say whether this filter alone holds all of `total`, arithmetic included."""
        if not self.holds_sum(total):
            return False
        if total.num_steps == 0:
            return True
        from guilder_shared.privacy import noise

        rest = noise.residue(total.num_steps, epsilon=self.epsilon, delta=self.delta)
        return (
            rest.epsilon <= ARITHMETIC * self.epsilon
            and rest.delta <= ARITHMETIC * self.delta
        )


@dataclass(frozen=True)
class Filters:
    """All filters of one budget, fixed when the budget is made.

    Attributes:
        epsilon: The pure sum's limit: the budget's own epsilon.
        delta: The pure sum's limit: half of the budget's delta.
        renyi: The orders that have any capacity at all.
    """

    epsilon: Decimal
    delta: Decimal
    renyi: tuple[RenyiFilter, ...]

    @classmethod
    def fix(cls, epsilon: float, delta: float) -> "Filters":
        """Fix the filters of a budget (epsilon, delta).

        Each Rényi order starts with delta / 16; orders without capacity are
        dropped and the kept ones share the half of delta evenly.
        """
        kept = [a for a in ORDERS if capacity(a, epsilon, delta / 2 / len(ORDERS)) > 0]
        share = delta / 2 / len(kept) if kept else 0.0
        renyi = tuple(
            RenyiFilter(a, epsilon, share, capacity(a, epsilon, share)) for a in kept
        )
        return cls(exact(epsilon), exact(delta / 2), renyi)

    def have_room(self, total: Cost) -> bool:
        """Say whether at least one filter holds all of `total`."""
        return self._sum_holds(total) or any(f.has_room(total) for f in self.renyi)

    def hold_sums(self, total: Cost) -> bool:
        """As `have_room`, but not looking at what the noise's arithmetic needs.

        Necessary, not sufficient: it follows from the documented formulas alone, so
        a ledger that once was possible stays so.
        """
        return self._sum_holds(total) or any(f.holds_sum(total) for f in self.renyi)

    def _sum_holds(self, total: Cost) -> bool:
        return total.epsilon <= self.epsilon and total.delta <= self.delta


def capacity(order: int, epsilon: float, delta: float) -> float:
    """The Rényi divergence of this order that still means (epsilon, delta)-DP.

    Both are first lowered by `ARITHMETIC`, which the noise's arithmetic may use.

    Returns:
        In nats; zero or less where the order cannot give this guarantee at all.

    Source: Canonne, Kamath and Steinke 2020, proposition 12, solved for the
    divergence.
    """
    log_delta = math.log(delta * (1 - ARITHMETIC))
    conversion = (log_delta + math.log(order)) / (order - 1) - math.log1p(-1 / order)
    return epsilon * (1 - ARITHMETIC) + conversion


def exact(number: float) -> Decimal:
    """The shortest decimal that reads back as this float: what was typed.

    So three studies of 0.1 fit a budget of 0.3, which they do not in floats.
    """
    return Decimal(repr(float(number)))
