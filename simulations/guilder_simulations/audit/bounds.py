"""From right guesses in one run to what epsilon must at least be.

A coin put each canary in or left it out; an attacker saw all that left, and guessed
for some of them. This module knows no model and draws nothing.

Review, mathematics. One run is enough because the coins are independent. How many are
guessed is fixed before the run; looking at several such numbers divides the error
among them (Bonferroni). Proof of `contradicts`, after Mahloujifar et al.: of c guesses
let p(j) be the chance that j are right, R(k) the sum over j >= k of j p(j) / m and H(k)
that of (c - j) p(j) / m. Turning one coin over makes a right guess wrong and leaves
the others, so R(k) <= 1 - f(1 - (…)) gives H(k - 1) >= f(1 - R(k)), by concavity on
average over canaries and coins. If j >= v had a chance of `error`, then R(v) >= error
v / m; and R and H, grown downwards by these rules, would end above R(0) + H(0) = c / m.
The growth computed here is never above the true one: what is above it in H at a step is
above it in R by at least k / (c - k) times as much, for all that is counted has j >= k.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)  # of canaries that are guessed


class Guesses(NamedTuple):
    """How one rule of guessing did.

    Attributes:
        made: Guesses, fixed before the run.
        right: Of these.
    """

    made: int
    right: int


class Curve(Protocol):
    """A trade-off function f, symmetric and convex."""

    def least(self, power: float) -> float:
        """f(1 - power): the least false-positive rate of a test of that power."""


def guess(scores: NDArray[np.float64], included: NDArray[np.bool_]) -> list[Guesses]:
    """Guess the highest scores in and the lowest out, as many of each.

    Args:
        scores: One a canary, larger where it is more likely in, shape (canaries,).
        included: What the coins said, shape (canaries,).

    Returns:
        One entry for each of `SHARES`.
    """
    order = np.argsort(scores, kind="stable")
    found = []
    for share in SHARES:
        half = max(1, int(len(scores) * share / 2))
        right = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
        found.append(Guesses(2 * half, right))
    return found


def contradicts(num: int, made: int, right: int, curve: Curve, error: float) -> bool:
    """Whether so many right guesses contradict f-DP.

    Args:
        num: Canaries.
        made: Guesses, 1 to `num`.
        right: Of these.
        curve: What is claimed of the mechanism, for a canary more or less.
        error: Chance with which a true claim may be contradicted, in (0, 1).

    Source: Mahloujifar, Melis, Chaudhuri 2024, arXiv 2410.22235, theorem on f-DP.
    """
    r, h = error * right / num, error * (made - right) / num
    for k in range(right, 0, -1):
        grown = curve.least(r)
        if grown <= h:
            break  # and so it would stay
        r, h = min(1.0, r + (k - 1) / (made - k + 1) * (grown - h)), grown
    return r + h > made / num


def any_contradicts(
    num: int, guesses: Sequence[Guesses], curve: Curve, error: float
) -> bool:
    """As `contradicts`, by any of several rules that share the error."""
    each = error / len(guesses)
    return any(contradicts(num, *some, curve, each) for some in guesses)


def one_run(
    num: int, guesses: Sequence[Guesses], *, delta: float, error: float
) -> float:
    """The least epsilon that any mechanism with these guesses has, at that delta.

    Args:
        num: Canaries.
        guesses: By each rule; they share the error.
        delta: Of the claim.
        error: As for `contradicts`.

    Returns:
        0 where nothing is shown.

    Source: Steinke, Nasr, Jagielski 2023, arXiv 2305.08846, theorem 5.2.
    """
    each = error / len(guesses)

    def too_many(epsilon: float) -> bool:
        return any(chance(num, *some, epsilon, delta) <= each for some in guesses)

    return largest(too_many, 0.0, 50.0)


def chance(num: int, made: int, right: int, epsilon: float, delta: float) -> float:
    """Most chance of so many right guesses under (epsilon, delta)-DP.

    Args:
        num: Canaries.
        made: Guesses.
        right: Of these, or more.
        epsilon: 0 or more.
        delta: 0 or more.
    """
    from scipy import special  # type: ignore[import-untyped]  # no stubs

    sure = float(special.expit(epsilon))
    # P(X >= j) of X binomial, for j = 0 … right
    j = np.arange(right + 1)
    tails = np.ones(right + 1)
    tails[1:] = special.betainc(j[1:], made - j[1:] + 1, sure)
    below = tails[:right][::-1] - tails[right]  # P(right > X >= right - i), i = 1 …
    worst = float(np.max(below / np.arange(1, right + 1), initial=0.0))
    return min(1.0, float(tails[right]) + 2 * num * delta * worst)


def largest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The largest number at which something holds that holds below it, to 1e-3.

    Returns:
        `low` where it does not hold there, `high` where it holds everywhere.
    """
    if not holds(low):
        return low
    if holds(high):
        return high
    for _ in range(math.ceil(math.log2((high - low) / 1e-3))):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
