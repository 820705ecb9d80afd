"""Several statistics of a site's rows as one noised vector: one draw, one event.

Counts, histograms and bounded sums are released together; means, variances, quantiles
and AUC are computed from what was released. This module reads no file, charges nothing
and sends nothing.

Review, mathematics. A block maps each row to numbers of L2 norm at most its public
`bound`. Blocks are divided by bound x sqrt(number of blocks) and laid side by side; a
unit's rows are summed and its vector is scaled to at most 1. Each number is then cut
towards zero to a multiple of 2**-30 and summed in int64, which is exact: adding or
removing one unit moves the sum by at most 1 (L2), whoever else is there. One Gaussian
of deviation `noise_multiplier` on that sum is one event for all blocks. A row that is
not finite counts zero; what is derived is post-processing. Public: blocks, bounds,
edges, multiplier. Secret: rows, units and how many there are.
Review, crash order: in memory only; the caller charges `event` before it reads rows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guilder_shared.errors import PlanError
from guilder_shared.privacy.events import MIN_NOISE_MULTIPLIER, Event, gaussian_event
from guilder_shared.privacy.noise import add_noise, grid_for

Numbers = NDArray[np.float64]
_UNITS = 2**30  # fixed point; 2**33 units fit an int64
_INSIDE = 1 - 1e-12  # what float64 may add to a norm of 1 is taken off first


@dataclass(frozen=True)
class Block:
    """One statistic's part of each row.

    Attributes:
        name: Of the statistic.
        rows: Shape (rows, numbers), float64.
        bound: Public: the largest L2 norm of a row. Longer units are scaled down.
    """

    name: str
    rows: Numbers
    bound: float


def count(name: str, num_rows: int) -> Block:
    """How many rows: each adds 1."""
    return Block(name, np.ones((num_rows, 1)), 1.0)


def histogram(name: str, values: Numbers, edges: Sequence[float]) -> Block:
    """Rows by cell between public edges; outer values count in the outer cells.

    Raises:
        PlanError: GLD-P090 the edges are fewer than two, not finite or not rising.
    """
    cuts = np.asarray(edges, dtype=np.float64)
    if len(cuts) < 2 or not np.isfinite(cuts).all() or not (np.diff(cuts) > 0).all():
        raise _refused(f"{name}: edges must be two or more rising finite numbers")
    finite = np.isfinite(values)
    rows = np.zeros((len(values), len(cuts) - 1))
    cells = np.searchsorted(cuts[1:-1], values[finite], side="right")
    rows[np.flatnonzero(finite), cells] = 1.0
    return Block(name, rows, 1.0)


def moments(name: str, values: Numbers, low: float, high: float) -> Block:
    """Count, sum and sum of squares of values clipped to public bounds.

    Values are moved to [-1, 1] first, so a row is at most sqrt(3).

    Raises:
        PlanError: GLD-P090 the bounds are not finite or not rising.
    """
    if not (-math.inf < low < high < math.inf):
        raise _refused(f"{name}: low must be below high, both finite")
    finite = np.isfinite(values)
    moved = np.where(finite, np.clip(values, low, high), low)
    moved = np.clip(2 * (moved - low) / (high - low) - 1, -1, 1)
    rows = np.stack([np.ones_like(moved), moved, moved**2], axis=1)
    return Block(name, rows * finite[:, None], math.sqrt(3.0))


def averaged(blocks: Sequence[Block], units: NDArray[np.int64]) -> list[Block]:
    """Each unit's rows by their number, so that a unit counts as the mean of its rows.

    A mean is no longer than the longest row, so no unit is scaled down by `total`.

    Args:
        blocks: Of the same rows.
        units: Whose row it is, shape (rows,).
    """
    _, places, counts = np.unique(units, return_inverse=True, return_counts=True)
    parts = 1.0 / counts[places]
    return [Block(b.name, b.rows * parts[:, None], b.bound) for b in blocks]


def event(noise_multiplier: float) -> Event:
    """The one event of a release, to be charged before rows are read.

    Raises:
        PlanError: GLD-P090 the noise is too small or not finite.
    """
    if not MIN_NOISE_MULTIPLIER <= noise_multiplier < math.inf:
        raise _refused("noise_multiplier must be finite and at least 0.05")
    return gaussian_event(noise_multiplier)


def total(blocks: Sequence[Block], units: NDArray[np.int64] | None = None) -> Numbers:
    """The exact joint sum of L2 sensitivity 1: secret until `release` has noised it.

    Args:
        blocks: At least one, of the same rows.
        units: Whose row it is, shape (rows,); None where each row is a unit.

    Raises:
        PlanError: GLD-P090 no blocks, other rows in each, or a bound not positive.
    """
    if not blocks or len({len(block.rows) for block in blocks}) != 1:
        raise _refused("one or more blocks of the same rows are needed")
    if not all(0 < block.bound < math.inf for block in blocks):
        raise _refused("every bound must be positive and finite")
    share = math.sqrt(len(blocks))
    joined = np.concatenate([b.rows / (b.bound * share) for b in blocks], axis=1)
    joined[~np.isfinite(joined).all(axis=1)] = 0.0
    if units is not None:
        _, places = np.unique(units, return_inverse=True)
        grouped = np.zeros((int(places.max(initial=-1)) + 1, joined.shape[1]))
        np.add.at(grouped, places, joined)
        grouped[~np.isfinite(grouped).all(axis=1)] = 0.0
        joined = grouped
    norms = np.linalg.norm(joined, axis=1, keepdims=True)
    joined = joined * (_INSIDE / np.maximum(norms, 1.0))
    sums = np.trunc(joined * _UNITS).astype(np.int64).sum(axis=0)
    return np.asarray(sums / _UNITS, dtype=np.float64)


def release(
    blocks: Sequence[Block],
    noise_multiplier: float,
    key: bytes,
    units: NDArray[np.int64] | None = None,
) -> Mapping[str, Numbers]:
    """Noise the joint sum once; give each block its numbers in its own scale.

    Args:
        blocks: As for `total`.
        noise_multiplier: Deviation of the noise, in units of the joint sensitivity.
        key: 32 bytes, used for this release only.
        units: As for `total`.

    Returns:
        By name. Private as `event(noise_multiplier)`, all of it together.

    Raises:
        PlanError: GLD-P090, as `event` and `total`.
    """
    event(noise_multiplier)
    std, share = noise_multiplier, math.sqrt(len(blocks))
    noised = add_noise(total(blocks, units), std, key, grid_for(std))
    ends = np.cumsum([block.rows.shape[1] for block in blocks])[:-1]
    parts = np.split(noised, ends)
    return {
        block.name: part * block.bound * share
        for block, part in zip(blocks, parts, strict=True)
    }


def mean_and_variance(
    released: Numbers, low: float, high: float
) -> tuple[float, float]:
    """From released `moments`; a noised count below 1 counts as 1."""
    num = max(float(released[0]), 1.0)
    mean = min(max(float(released[1]) / num, -1.0), 1.0)
    variance = min(max(float(released[2]) / num - mean**2, 0.0), 1.0)
    half = (high - low) / 2
    return low + half * (mean + 1), variance * half**2


def quantile(released: Numbers, edges: Sequence[float], share: float) -> float:
    """From a released histogram, straight inside a cell; NaN where all are empty."""
    counts = np.maximum(released, 0.0)
    if counts.sum() <= 0:
        return math.nan
    rising = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    return float(np.interp(share, rising, np.asarray(edges, dtype=np.float64)))


def auc(negatives: Numbers, positives: Numbers) -> float:
    """From two released histograms of scores; ties within a cell count half.

    Returns:
        In [0, 1]; NaN where a class has no positive count left.
    """
    low, high = np.maximum(negatives, 0.0), np.maximum(positives, 0.0)
    if low.sum() <= 0 or high.sum() <= 0:
        return math.nan
    below = np.cumsum(low) - low / 2
    return float((high * below).sum() / (low.sum() * high.sum()))


def _refused(what: str) -> PlanError:
    return PlanError(
        "GLD-P090",
        f"a private statistic cannot be released: {what}.",
        fix="Correct its public bounds, edges or noise.",
    )
