"""How unlikely a count or a sum of squares is, exactly: the self-test's only judge.

Every statistical check of the self-test asks here, tail by tail, and alarms below one
share. This module draws nothing.

Review, mathematics. There are at most 40 tails in a run, however many units: a check
over many units divides one share among them: 40 x 2**-26 < 6.0e-7 in all (Bonferroni).
Tails are exact (incomplete gamma and beta functions) or proven bounds, never a normal
approximation.
Review, crash order: pure functions.
"""

import math

SHARE = 2.0**-26  # of false alarms: what one tail may take
MOST_TAILS = 40  # 8 of draws, 16 of training noise, 16 of figures


def chi_square_fits(squares: float, freedom: int, *, slack: float = 0.0) -> bool:
    """Whether a sum of squares of standard normal numbers is believable. Two tails.

    Args:
        squares: The sum.
        freedom: How many squares; positive.
        slack: What rounding may add to the variance, relative: the upper tail is
            taken at `squares` / (1 + slack).
    """
    from scipy import special  # type: ignore[import-untyped]  # no stubs

    low = special.gammainc(freedom / 2, squares / 2)
    high = special.gammaincc(freedom / 2, squares / (1 + slack) / 2)
    return bool(low >= SHARE and high >= SHARE)


def binomial_fits(count: int, trials: int, chance: float, *, among: int = 1) -> bool:
    """Whether so many of so many independent trials is believable. Two tails.

    Args:
        count: Trials that came out.
        trials: How many.
        chance: Of each, in (0, 1).
        among: How many such counts are looked at; they divide the share.
    """
    from scipy import special

    # P(X <= count) and P(X >= count) by the incomplete beta function.
    low = 1.0
    if count < trials:
        low = special.betainc(trials - count, count + 1, 1 - chance)
    high = 1.0
    if count > 0:
        high = special.betainc(count, trials - count + 1, chance)
    return bool(low >= SHARE / among and high >= SHARE / among)


def spread_fits(sizes: list[int], num: int, chance: float) -> bool:
    """Whether sizes of batches vary as those of independent coins do. Two tails.

    Sizes that never vary are a shuffled epoch's, sizes that vary too much those of
    units that are drawn together.

    Args:
        sizes: Of independent draws.
        num: Units in each.
        chance: Of each unit, in (0, 1).

    Source: Maurer 2003 for the lower tail of a sum of positive numbers, Bernstein's
    inequality for the upper one. Both are bounds: the true rate is far lower.
    """
    variance = num * chance * (1 - chance)
    mean = num * chance
    squares = sum((size - mean) ** 2 / variance for size in sizes)
    draws, log_share = len(sizes), -math.log(SHARE)
    fourth = 3 + (1 - 6 * chance * (1 - chance)) / variance  # E z**4
    below = math.sqrt(2 * draws * fourth * log_share)
    most = max(mean, num - mean) ** 2 / variance  # largest z**2
    # t**2 = 2 L (draws x var(z**2) + most x t / 3), solved for t
    half = log_share * most / 3
    above = half + math.sqrt(half**2 + 2 * log_share * draws * (fourth - 1))
    return draws - below <= squares <= draws + above


def draws_for_spread(num: int, chance: float) -> int:
    """Draws that `spread_fits` needs so that sizes which never vary are told."""
    variance = num * chance * (1 - chance)
    fourth = 3 + (1 - 6 * chance * (1 - chance)) / variance
    return math.ceil(2.5 * 2 * fourth * -math.log(SHARE))
