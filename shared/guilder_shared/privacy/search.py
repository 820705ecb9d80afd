"""The search for the least noise at which a schedule costs no more than it may.

Numbers in, a noise multiplier out. This module knows no study and charges nothing;
scipy is imported when first used.

Review, mathematics: the answer is not believed but evaluated once more on the fine
grid, and raised until that upper bound meets the goal. All inputs are public.
Review, crash order: pure functions; nothing is durable here and nothing is sent.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from guilder_shared.errors import PlanError
from guilder_shared.privacy import bounds
from guilder_shared.privacy.events import (
    GAUSSIAN,
    LAPLACE,
    MIN_NOISE_MULTIPLIER,
    Leaf,
)

MAX_NOISE_MULTIPLIER = 4096.0


class Goal(NamedTuple):
    """What one kind of step may cost in all, and what to say where it cannot."""

    epsilon: float
    delta: float
    sample_rate: float
    num_steps: int
    slack: float
    refused: Callable[[float], PlanError]  # told the nearest epsilon
    kind: str = GAUSSIAN

    def leaf(self, noise_multiplier: float) -> Leaf:
        """All the steps, with this noise."""
        return Leaf(noise_multiplier, self.sample_rate, self.num_steps, self.kind)


def least_noise(goal: Goal) -> float:
    """The least noise multiplier, slack included, whose fine epsilon meets the goal."""
    for interval in (bounds.COARSE, bounds.FINE, bounds.FINE / 10):
        effective = _least_on_grid(goal, interval)
        multiplier, cost = _settle(goal, effective)
        # Short schedules are exact on the coarse grid; thousands of steps are not,
        # and would be given more noise than they need.
        if cost >= 0.99 * goal.epsilon or effective == MIN_NOISE_MULTIPLIER:
            break
    return multiplier


def _settle(goal: Goal, effective: float) -> tuple[float, float]:
    """This noise, raised until its fine epsilon meets the goal; and what it costs."""
    while True:
        # Six decimals, upwards: short in JSON and never below what is needed.
        multiplier = math.ceil(effective * (1 + goal.slack) * 1e6) / 1e6
        leaf = goal.leaf(multiplier / (1 + goal.slack))
        cost = bounds.epsilon((leaf,), goal.delta, fine=True)
        if cost <= goal.epsilon:
            return multiplier, cost
        effective *= 1.0005


def _least_on_grid(goal: Goal, interval: float) -> float:
    """Effective noise multiplier on one grid, to 1 part in 10,000, from above."""
    from scipy.optimize import brentq  # type: ignore[import-untyped]  # no stubs

    @cache
    def excess(log_noise: float) -> float:
        found = bounds.on_grid((goal.leaf(math.exp(log_noise)),), goal.delta, interval)
        return found.epsilon + found.arithmetic - goal.epsilon

    lowest, highest = math.log(MIN_NOISE_MULTIPLIER), math.log(MAX_NOISE_MULTIPLIER)
    high = min(max(_first_guess(goal), lowest), highest)
    while excess(high) > 0:
        if high >= highest:
            raise goal.refused(excess(high) + goal.epsilon)
        high = min(high + 0.1, highest)
    low = max(high - 0.1, lowest)
    while excess(low) <= 0:
        if low == lowest:
            return MIN_NOISE_MULTIPLIER
        high, low = low, max(low - 0.1, lowest)
    return math.exp(brentq(excess, low, high, xtol=1e-4)) * (1 + 1e-4)


def _first_guess(goal: Goal) -> float:
    """Log noise multiplier at which the schedule is about one Gaussian of that cost.

    Source: the central limit of Bu et al. 2020, mu = q sqrt(T (exp(1/z^2) - 1)).
    """
    rate, num_steps = goal.sample_rate, goal.num_steps
    if goal.kind == LAPLACE:
        return math.log(num_steps / goal.epsilon)
    tail = math.sqrt(2 * math.log(1 / goal.delta))
    # eps = mu^2/2 + mu tail, solved for mu: a little too private, near enough
    mu = math.sqrt(tail**2 + 2 * goal.epsilon) - tail
    if rate == 1:
        return math.log(math.sqrt(num_steps) / mu)
    return -0.5 * math.log(math.log1p(mu**2 / (rate**2 * num_steps)))
