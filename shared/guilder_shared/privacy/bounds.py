"""Two accountants and how they are used: epsilon and Renyi bounds of merged steps.

dp_accounting is imported when first used. This module knows no study and no plan.

Review, mathematics. Adjacency: add or remove one unit. Outputs with and without a unit
differ by no more than the chance that it is drawn at all, whatever the noise. Discrete
Gaussian steps have at whole orders the Gaussian's divergence, exactly, and at others no
more (Canonne, Kamath and Steinke 2020, theorem 4). Steps are composed by their
privacy loss distribution, rounded so that epsilon is never too small (Doroshenko et
al. 2022). To it `noise.residue` is added: what the noise's arithmetic costs. A fine
figure above the Renyi one is a fault in one of the two and fails closed.
Review, crash order: pure functions; nothing is durable here and nothing is sent.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from guilder_shared.errors import PlanError
from guilder_shared.privacy import noise
from guilder_shared.privacy.events import DISCRETE, GAUSSIAN, LAPLACE, Leaves

COARSE, FINE = 1e-3, 1e-4  # widths of a privacy loss distribution's cells
_FINEST = FINE / 32
QUICK_ORDERS = (1.1, 1.25, 1.5, *range(2, 33), 40, 48, 64, 96, 128, 256, 512)
# Hostile plans must not fill the memory: beyond these the looser bound serves.
_PLD_FITS = 2000.0  # Renyi epsilon up to which a coarse PLD fits (millions of cells)
_FINE_FITS = 200.0  # epsilon up to which a fine one does
_MOST_LOSSES = 500_000  # cells of one step's losses: some 5 s of a processor


class Found(NamedTuple):
    """A bound on one grid, in its parts.

    Attributes:
        epsilon: Of the ideal mechanism, at `ideal_delta`.
        ideal_delta: What the arithmetic left of delta.
        arithmetic: What the arithmetic adds to epsilon.
    """

    epsilon: float
    ideal_delta: float
    arithmetic: float


@lru_cache(maxsize=1024)
def epsilon(leaves: Leaves, delta: float, *, fine: bool) -> float:
    """Upper bound on epsilon; `accounting.epsilon` says how good.

    Raises:
        PlanError: GLD-P004, the two accountants contradict each other.
    """
    if not leaves:
        return 0.0
    found = on_grid(leaves, delta, COARSE)
    value = found.epsilon
    if fine and 0 < value <= _FINE_FITS:
        # each grid gives an upper bound; a fine one cuts off more of a tiny delta
        value = min(value, _refine(leaves, found.ideal_delta, value))
        _cross_check(leaves, found.ideal_delta, value)
    return value + found.arithmetic


def on_grid(leaves: Leaves, delta: float, interval: float) -> Found:
    """The bound on one grid, without a cross-check.

    Args:
        leaves: At least one step.
        delta: In (0, 1).
        interval: Width of the grid's cells; smaller is tighter and slower.
    """
    upper = renyi_epsilon(leaves, delta, QUICK_ORDERS)
    left = noise.residue(num_steps(leaves), epsilon=upper, delta=delta)
    if left.delta >= delta:
        return Found(math.inf, delta, left.epsilon)
    ideal_delta = delta - left.delta
    drawn_ever = sum(leaf.num_steps * leaf.sample_rate for leaf in leaves)
    if drawn_ever <= ideal_delta:  # a unit that is never drawn is not there
        return Found(0.0, ideal_delta, left.epsilon)
    if upper > _PLD_FITS:
        value = renyi_epsilon(leaves, ideal_delta, QUICK_ORDERS)
    else:
        value = pld_epsilon(leaves, ideal_delta, interval)
    return Found(value, ideal_delta, left.epsilon)


def _refine(leaves: Leaves, delta: float, previous: float) -> float:
    interval = FINE
    while True:
        value = pld_epsilon(leaves, delta, interval)
        settled = abs(previous - value) <= 0.01 * value
        if settled or interval <= _FINEST:
            return value  # an upper bound on every grid
        previous, interval = value, interval / 2


def _cross_check(leaves: Leaves, delta: float, value: float) -> None:
    renyi_value = renyi_epsilon(leaves, delta, None)
    # Both are upper bounds; the tight one is never above the loose one, which for
    # Laplace noise is as tight, and on no grid.
    cut = sum(leaf.num_steps for leaf in leaves if leaf.kind == LAPLACE)
    if value > renyi_value * (1 + 1e-6) + 1e-6 + cut * FINE:
        raise PlanError(
            "GLD-P004",
            f"the accountants disagree: privacy loss distribution {value:.6g}, "
            f"Renyi {renyi_value:.6g} at delta {delta:.3g}.",
            why="The tight figure may not exceed the loose one; one of them is wrong.",
            fix="Nothing was charged. Report this with the study file.",
        )


def demand_near(value: float, lower: float, upper: float) -> None:
    """Raise unless a tight figure lies within another method's bounds, and a bit more.

    Below them by 2 % is a fault. Above them it is pessimistic, as its grid is for very
    small epsilons; by 2 % and 0.02 it is a fault as well (design 5.12).

    Raises:
        PlanError: GLD-P004.
    """
    if lower * 0.98 - 1e-6 <= value <= upper * 1.02 + 0.02:
        return
    raise PlanError(
        "GLD-P004",
        f"the accountants disagree: privacy loss distribution {value:.6g}, privacy "
        f"loss random variable between {lower:.6g} and {upper:.6g}.",
        why="Both bound the same figure; one of them is wrong.",
        fix="Nothing was charged. Report this with the study file.",
    )


def num_steps(leaves: Leaves) -> int:
    """Noised sums in all."""
    return sum(leaf.num_steps for leaf in leaves)


def _dp_events(leaves: Leaves) -> Any:
    import dp_accounting
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # its hints on orders help nobody here
    events = []
    for leaf in leaves:
        step = dp_accounting.GaussianDpEvent(leaf.noise_multiplier)
        if leaf.kind == LAPLACE:
            step = dp_accounting.LaplaceDpEvent(leaf.noise_multiplier)
        if leaf.sample_rate < 1:
            step = dp_accounting.PoissonSampledDpEvent(leaf.sample_rate, step)
        events.append(dp_accounting.SelfComposedDpEvent(step, leaf.num_steps))
    return dp_accounting.ComposedDpEvent(events)


def pld_epsilon(leaves: Leaves, delta: float, interval: float) -> float:
    """Epsilon by privacy loss distribution: tight, and never too small.

    Little noise has long losses: its cells are wider than `interval` then.
    """
    from dp_accounting.pld import PLDAccountant

    least = min(leaf.noise_multiplier for leaf in leaves)
    interval = max(interval, (1 / (2 * least**2) + 9 / least) / _MOST_LOSSES)
    if any(leaf.kind == DISCRETE for leaf in leaves):
        return float(_with_discrete(leaves, interval).get_epsilon_for_delta(delta))
    accountant = PLDAccountant(value_discretization_interval=interval)
    return float(accountant.compose(_dp_events(leaves)).get_epsilon(delta))


def _with_discrete(leaves: Leaves, interval: float) -> Any:
    """The distribution of a composition some of whose steps are discrete Gaussian."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    whole = pld.identity(interval)
    for leaf in leaves:
        named: dict[str, Any] = {"value_discretization_interval": interval}
        if leaf.kind == GAUSSIAN:
            named |= {"sampling_prob": leaf.sample_rate, "use_connect_dots": True}
        make = {
            GAUSSIAN: pld.from_gaussian_mechanism,
            LAPLACE: pld.from_laplace_mechanism,
            DISCRETE: pld.from_discrete_gaussian_mechanism,
        }[leaf.kind]
        step = make(leaf.noise_multiplier, **named)
        whole = whole.compose(step.self_compose(leaf.num_steps))
    return whole


def renyi_epsilon(
    leaves: Leaves, delta: float, orders: Sequence[float] | None
) -> float:
    """Epsilon by Renyi divergences: looser, and needs little memory.

    Args:
        leaves: At least one step.
        delta: In (0, 1).
        orders: None for the accountant's own, many of them fractional.
    """
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(orders)
    return float(accountant.compose(_dp_events(leaves)).get_epsilon(delta))


@lru_cache(maxsize=1024)
def renyi(leaves: Leaves, orders: tuple[int, ...]) -> tuple[float, ...]:
    """Renyi divergence bounds, one an order."""
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(orders).compose(_dp_events(leaves))
    return tuple(float(value) for value in accountant.rdp)
