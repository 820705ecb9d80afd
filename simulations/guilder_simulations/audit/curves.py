"""What an attacker can tell at best from a study's schedule: its trade-off function.

Computed from the same events that the ledger charges. This module attacks nothing.

Review, mathematics. A mechanism that is (e, d(e))-DP for every e is f-DP for the
largest f these pairs imply. The pairs are a privacy loss distribution's, rounded so
that d is never too small, plus what the noise's arithmetic costs: f is never above the
true one, so what contradicts it contradicts the claim.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from guilder_shared.messages import Plan
from guilder_shared.privacy import accounting, noise
from guilder_shared.privacy.events import merge
from guilder_shared.study import Study

Numbers = NDArray[np.float64]

_GRID = 1e-3
_EPSILONS = np.concatenate([np.linspace(0, 4, 161), np.linspace(4.1, 20, 160)])


@dataclass(frozen=True)
class TradeOff:
    """A symmetric trade-off function, as the largest under some (epsilon, delta).

    Attributes:
        epsilons: 0 or more, shape (pairs,).
        deltas: In [0, 1], shape (pairs,).
    """

    epsilons: Numbers
    deltas: Numbers

    def least(self, power: float) -> float:
        """f(1 - power): the least false-positive rate of a test of that power."""
        steep = 1 - self.deltas - np.exp(self.epsilons) * (1 - power)
        flat = np.exp(-self.epsilons) * (power - self.deltas)
        return max(0.0, float(steep.max()), float(flat.max()))

    def power(self, false_positives: float) -> float:
        """1 - f: the largest true-positive rate at that false-positive rate."""
        return 1.0 - self.least(1 - false_positives)


@lru_cache(maxsize=64)
def of_schedule(
    num_steps: int, sample_rate: float, noise_multiplier: float
) -> TradeOff:
    """The trade-off function of that many steps.

    Args:
        num_steps: Poisson-sampled Gaussian sums.
        sample_rate: In (0, 1]; 1 for plain Gaussian sums.
        noise_multiplier: Standard deviation by sensitivity, slack included.
    """
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    step = dp_accounting.GaussianDpEvent(noise_multiplier)
    if sample_rate < 1:
        step = dp_accounting.PoissonSampledDpEvent(sample_rate, step)
    accountant = PLDAccountant(value_discretization_interval=_GRID)
    accountant.compose(dp_accounting.SelfComposedDpEvent(step, num_steps))
    deltas = np.array([accountant.get_delta(float(e)) for e in _EPSILONS])
    left = noise.residue(num_steps, epsilon=float(_EPSILONS[-1]), delta=1e-9)
    return TradeOff(_EPSILONS + left.epsilon, np.minimum(1.0, deltas + left.delta))


def of_study(study: Study, plan: Plan, *, noise_share: float = 1.0) -> TradeOff:
    """The trade-off function of a study's schedule, spare turns included.

    Args:
        study: With a mechanism that adds noise.
        plan: As confirmed.
        noise_share: Of the planned noise: the same schedule with another noise.
    """
    ((leaf,),) = merge([(accounting.training_event(study, plan), 1)]) or ()
    multiplier = leaf.noise_multiplier * noise_share
    return of_schedule(leaf.num_steps, leaf.sample_rate, multiplier)


def epsilon(curve: TradeOff, delta: float) -> float:
    """The least epsilon of a curve at this delta; infinity beyond what it holds."""
    inside = np.flatnonzero(curve.deltas <= delta)
    return float(curve.epsilons[inside[0]]) if inside.size else math.inf
