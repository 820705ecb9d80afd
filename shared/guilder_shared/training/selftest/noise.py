"""Is the noise that is released the noise that is charged? On the released numbers.

A site without rows releases noise alone: that is looked at number by number, for the
study's own model, std, divisor and grid. This module changes nothing.

Review, mathematics. With no rows the sum is zero, so what the optimizer got, times the
public divisor, is the noise rounded to the grid. At the middles between two grid points
the rounded law's tails are the Gaussian's own, exactly; its variance is larger by at
most grid**2 / 12. Tails looked at: 2 of all squares, 2 of the sum over steps, 2 of the
sum over numbers, 2 of the sign, 2 at each of 4 thresholds: 16.
Review, crash order: in memory only.
"""

import math

import numpy as np
from numpy.typing import NDArray

from guilder_shared.messages import Weights
from guilder_shared.privacy.noise import add_noise, grid_for
from guilder_shared.privacy.witness import Seen
from guilder_shared.tasks import Examples
from guilder_shared.training.selftest import chance
from guilder_shared.training.selftest.trial import Setting, observe, seeded_globals

Numbers = NDArray[np.float64]

ENOUGH = 4096  # numbers of each of two turns: tells a std that is off by 6 %
MOST_STEPS = 512
MOST_NUMBERS = 1 << 17  # looked at in one step

# A key among whose first numbers there is one of 6.5 standard deviations, found by
# trying keys 0, 1, 2 …: chance alone would need 10**10 numbers to show a cut-off tail.
FAR_KEY = (64_694).to_bytes(32, "big")
FAR_NUMBERS = 1 << 14
FAR = 6.0


def check(setting: Setting, nobody: Examples, weights: Weights) -> list[str]:
    """What is wrong with the noise; nothing, if all is well.

    Args:
        setting: With a mechanism that adds noise.
        nobody: No rows, in the study's shapes.
        weights: To start from.
    """
    numbers = sum(array.size for array in weights.values())
    steps = min(MOST_STEPS, max(2, math.ceil(ENOUGH / max(1, numbers))))
    many = setting.with_a_fixed_clip_norm().with_schedule(local_steps=steps)
    turns = []
    for _ in range(2):
        with seeded_globals(7):  # the same for both: nothing may come from there
            seen, _ = observe(many, nobody, weights)
        turns.append(seen)
    found = _empty_steps(turns, steps)
    if found:
        return found
    first, second = (_released(many, seen) for seen in turns)
    found += repeats(first, second)
    found += law(np.concatenate([first, second]), many.std)
    return found + _far()


def _empty_steps(turns: list[list[Seen]], steps: int) -> list[str]:
    for seen in turns:
        if len(seen) != steps or not all(len(s.given) for s in seen):
            return ["a step without rows released nothing: it must release noise"]
        if any(len(s.rows) or s.total.any() for s in seen):
            return ["a step without rows has rows or a sum"]
    return []


def _released(setting: Setting, seen: list[Seen]) -> Numbers:
    """Steps' releases in the sum's own units, (steps, numbers looked at)."""
    places = _places(len(seen[0].given))
    return np.stack([s.given[places] for s in seen]) * setting.expected


def _places(numbers: int) -> NDArray[np.int64]:
    """All numbers of a small model; of a large one its ends and some from all over."""
    if numbers <= MOST_NUMBERS:
        return np.arange(numbers)
    stride = numbers // (MOST_NUMBERS // 2) | 1  # odd: no block of 2**k is favoured
    end = MOST_NUMBERS // 8
    ends = [np.arange(end), np.arange(numbers - end, numbers)]
    return np.unique(np.concatenate([np.arange(0, numbers, stride), *ends]))


def repeats(first: Numbers, second: Numbers) -> list[str]:
    """Two turns with two keys and equal seeds everywhere else, and their steps."""
    if np.mean(first == second) > 0.5:
        return ["two turns have the same noise: it follows from a seed"]
    if np.mean(first[1:] == first[:-1]) > 0.5:
        return ["two steps have the same noise"]
    return []


def law(released: Numbers, std: float) -> list[str]:
    """Whether numbers, (releases, numbers of each), are the noise that is charged."""
    grid = grid_for(std)
    found = []
    off = np.abs(released / grid - np.rint(released / grid))
    if not np.isfinite(released).all():
        return ["the noise is not finite"]
    if (off > 1e-3 + 1e-6 * np.abs(released / grid)).any():
        found.append("the release is not rounded to the public grid")
    slack = (grid / std) ** 2 / 12 + 1e-6
    z = released / std
    steps, numbers = z.shape
    for what, squares, freedom in (
        ("standard deviation", float((z**2).sum()), z.size),
        ("sum over steps", float((z.sum(0) ** 2).sum() / steps), numbers),
        ("sum over numbers", float((z.sum(1) ** 2).sum() / numbers), steps),
    ):
        if not chance.chi_square_fits(squares, freedom, slack=slack):
            share = math.sqrt(squares / freedom)
            found.append(f"the noise's {what} is {share:.3f} of what is charged")
    return found + _tails(released, std, grid)


def _tails(released: Numbers, std: float, grid: float) -> list[str]:
    from scipy import special  # type: ignore[import-untyped]  # no stubs

    found = []
    positive = int((released > grid / 2).sum())
    above = float(special.ndtr(-(grid / 2) / std))
    if not chance.binomial_fits(positive, released.size, above):
        found.append("the noise leans to one side")
    for sigmas in (0.5, 1.0, 2.0, 3.0):
        edge = (math.floor(sigmas * std / grid) + 0.5) * grid
        beyond = int((np.abs(released) > edge).sum())
        expected = 2 * float(special.ndtr(-edge / std))
        if not chance.binomial_fits(beyond, released.size, expected):
            found.append(f"too few or too many numbers lie beyond {sigmas:g} std")
    return found


def _far() -> list[str]:
    """The far tail, where an expected wait for chance would be 10**9 numbers."""
    drawn = add_noise(np.zeros(FAR_NUMBERS), 1.0, FAR_KEY, grid_for(1.0))
    if float(np.abs(drawn).max()) <= FAR:
        return [f"the noise is cut off below {FAR:g} standard deviations"]
    return []
