"""A third accountant: privacy loss random variables, composed by Fourier transform.

A cross-check of the privacy loss distributions that plans and reports rest on, by
another method in other code. numpy and scipy are imported when first used. It knows
no study and charges nothing.

Review, mathematics. Adjacency: add or remove one unit; both directions are composed
and the larger epsilon is taken. A step is a Poisson-sampled Gaussian (rate 1: plain), a
Laplace or a discrete Gaussian one (both directions are alike). Each step's loss is cut
to [-L, L], put on a mesh with its mean kept, and composed; the figures are bounds up to
`eps_error` in epsilon and delta / 1000 in delta. Source: Gopi, Lee and Wutschitz 2021,
"Numerical composition of differential privacy", theorem 5.5 and algorithm 1. All inputs
are public constants.
Review, crash order: pure functions; nothing is durable here and nothing is sent.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

from guilder_shared.privacy import bounds
from guilder_shared.privacy.events import DISCRETE, LAPLACE, Leaf

MOST_CELLS = 1 << 22  # of the mesh; a finer one takes seconds and much memory
DELTA_SHARE = 1e-3  # of delta that the method's errors may take


class Bounds(NamedTuple):
    """Epsilon at a delta, from below, as estimated, and from above."""

    lower: float
    estimate: float
    upper: float


@lru_cache(maxsize=256)
def epsilon(leaves: tuple[Leaf, ...], delta: float, eps_error: float) -> Bounds | None:
    """Epsilon of these steps by their privacy loss random variables.

    Args:
        leaves: At least one.
        delta: In (0, 1).
        eps_error: How far the bounds lie from the estimate; a smaller one is slower.

    Returns:
        None where the mesh would have more than `MOST_CELLS` cells.
    """
    delta_error = DELTA_SHARE * delta
    num_steps = bounds.num_steps(leaves)
    width = eps_error / math.sqrt(num_steps / 2 * math.log(12 / delta_error))
    reach = _reach(leaves, delta_error, eps_error)
    cells = 2 * math.ceil(reach / width)
    if not math.isfinite(reach) or cells > MOST_CELLS:
        return None
    found = []
    for removed in (True, False):
        losses, chances = _composed(leaves, width, cells, removed=removed)
        found.append(
            Bounds(
                _epsilon_at(losses, chances, delta + delta_error) - eps_error,
                _epsilon_at(losses, chances, delta),
                _epsilon_at(losses, chances, delta - delta_error) + eps_error,
            )
        )
    return max(found, key=lambda each: each.estimate)


def _reach(leaves: tuple[Leaf, ...], delta_error: float, eps_error: float) -> float:
    """L: beyond it the composed loss, and each step's, have next to no chance."""
    orders = bounds.QUICK_ORDERS
    reach = eps_error + bounds.renyi_epsilon(leaves, delta_error / 4, orders)
    each = delta_error / 8 / bounds.num_steps(leaves)
    for leaf in leaves:
        one = (leaf._replace(num_steps=1),)
        reach = max(reach, bounds.renyi_epsilon(one, each, orders))
    return reach + 3


def _composed(
    leaves: tuple[Leaf, ...], width: float, cells: int, *, removed: bool
) -> tuple[Any, Any]:
    """Values of the composed loss and their chances."""
    import numpy as np
    from scipy import fft  # type: ignore[import-untyped]  # no stubs

    losses = (np.arange(cells) - cells // 2) * width
    spectrum, shift = np.ones(cells // 2 + 1, dtype=complex), 0.0
    for leaf in leaves:
        chances, mean = _on_mesh(leaf, losses, width, removed=removed)
        shift += leaf.num_steps * (mean - float(losses @ chances))
        spectrum *= fft.rfft(fft.ifftshift(chances)) ** leaf.num_steps
    composed = fft.fftshift(fft.irfft(spectrum, n=cells))
    return losses + shift, np.clip(composed, 0.0, None)


def _on_mesh(
    leaf: Leaf, losses: Any, width: float, *, removed: bool
) -> tuple[Any, float]:
    """One step's chances on the mesh, and the mean of its loss within [-L, L]."""
    import numpy as np

    if leaf.kind == DISCRETE:
        return _atoms_on_mesh(leaf, losses, width)
    edges = np.append(losses - width / 2, losses[-1] + width / 2)
    at_edges = _distribution(leaf, edges, removed=removed)
    if leaf.kind == LAPLACE:  # all of it lies inside; its mean has a closed form
        most = 1 / leaf.noise_multiplier
        return np.diff(at_edges), most + math.expm1(-most)
    middle = _distribution(leaf, losses, removed=removed)
    inside = at_edges[-1] - at_edges[0]
    # by parts, and Simpson's rule for the integral of the distribution
    integral = width / 6 * float((at_edges[:-1] + 4 * middle + at_edges[1:]).sum())
    ends = edges[-1] * at_edges[-1] - edges[0] * at_edges[0]
    return np.diff(at_edges) / inside, float((ends - integral) / inside)


def _atoms_on_mesh(leaf: Leaf, losses: Any, width: float) -> tuple[Any, float]:
    """As `_on_mesh` for the discrete Gaussian: whole numbers, each with one loss."""
    import numpy as np

    noise = leaf.noise_multiplier
    places = np.arange(-math.ceil(40 * noise) - 1, math.ceil(40 * noise) + 2)
    chances = np.exp(-(places**2) / (2 * noise**2))
    lost = (1 - 2 * places) / (2 * noise**2)
    cells = np.rint((lost - losses[0]) / width).astype(np.int64)
    kept = (cells >= 0) & (cells < len(losses))
    chances = chances[kept] / chances[kept].sum()
    mesh = np.bincount(cells[kept], weights=chances, minlength=len(losses))
    return mesh, float(lost[kept] @ chances)


def _distribution(leaf: Leaf, losses: Any, *, removed: bool) -> Any:
    """Chance that one step's privacy loss is at most each of `losses`."""
    import numpy as np
    from scipy.special import ndtr  # type: ignore[import-untyped]  # no stubs

    noise, rate = leaf.noise_multiplier, leaf.sample_rate
    if leaf.kind == LAPLACE:  # the loss is cut at both ends, where it has its mass
        inside = np.exp((np.minimum(losses, 1 / noise) - 1 / noise) / 2) / 2
        cut = np.where(losses >= 1 / noise, 1.0, inside)
        return np.where(losses < -1 / noise, 0.0, cut)
    signed = losses if removed else -losses
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # where the mixture's loss takes this value: x = s^2 log((e^t - 1 + q)/q) + 1/2
        inner = np.expm1(signed) + rate
        log_ratio = np.where(
            signed > 30, signed - math.log(rate), np.log(np.maximum(inner, 0) / rate)
        )
        place = noise**2 * log_ratio + 0.5
    if removed:
        return (1 - rate) * ndtr(place / noise) + rate * ndtr((place - 1) / noise)
    return ndtr(-place / noise)


def _epsilon_at(losses: Any, chances: Any, delta: float) -> float:
    """The epsilon at which the hockey-stick divergence of the mesh is `delta`."""
    import numpy as np
    from scipy.optimize import brentq  # type: ignore[import-untyped]  # no stubs

    def excess(value: float) -> float:
        above = losses > value
        return float(chances[above] @ -np.expm1(value - losses[above])) - delta

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, float(losses[-1]), xtol=1e-9))
