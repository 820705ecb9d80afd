"""Are units drawn as accounted: each by its own coin, of the public rate?

The product's sampler is asked many times. That a turn uses that sampler is checked by
comparing what its steps drew. This module changes nothing.

Review, mathematics. Counts of independent coins are binomial, exactly. Tails looked at:
2 of all draws together, 2 of each unit (one share among all units), 2 of pairs of
draws that follow each other, 2 of the sizes' spread: 8. A shuffled epoch draws each
unit equally often and is told by sizes that do not vary; a unit that cannot be drawn
again in the next step is told by the pairs.
Review, crash order: in memory only.
"""

import math

import numpy as np
from numpy.typing import NDArray

from guilder_shared.messages import Weights
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.draws import Sampler
from guilder_shared.training.selftest import chance
from guilder_shared.training.selftest.trial import Setting, observe

_MOST_UNITS = 20_000
_DRAWN = 16  # expected units of a draw, where that many fit
_MOST_ROWS = 8_000_000  # looked at in all


def check(setting: Setting, some: Examples, weights: Weights) -> list[str]:
    """What is wrong with the draws; nothing, if all is well.

    Args:
        setting: The real study.
        some: A few rows, in the study's shapes.
        weights: To start from.
    """
    found = _turn_uses_the_sampler(setting, some, weights) + _cap(setting)
    rate = setting.study.training.sample_rate
    if setting.study.privacy.unit == "site":
        return found + _site(setting, some)
    num = min(_MOST_UNITS, math.ceil(_DRAWN / rate))
    keys = setting.make_keys()
    sampler = Sampler(setting.study, _units(num, setting.study))
    if rate == 1:
        return found + _all(sampler, keys, num, setting.study)
    draws = max(256, chance.draws_for_spread(num, rate))
    draws = min(draws, max(2, _MOST_ROWS // num)) // 2 * 2
    drawn = [_drawn(sampler, keys, step, setting.study) for step in range(draws)]
    return found + _coins(drawn, num, rate)


def _units(num: int, study: Study) -> Examples:
    """So many units of one row each; persons have names that are no row numbers."""
    nothing = np.zeros((num, 0), dtype=np.float32)
    persons = study.privacy.unit == "person"
    names = 10**9 + 7 * np.arange(num, dtype=np.int64)
    return Examples(nothing, np.zeros(num, np.float32), names if persons else None)


def _drawn(
    sampler: Sampler, keys: TurnKeys, step: int, study: Study
) -> NDArray[np.int64]:
    """The units of one draw; each has one row, so a row stands for its unit."""
    rows = sampler.draw(keys, step).rows
    return np.asarray(rows, dtype=np.int64)


def _all(sampler: Sampler, keys: TurnKeys, num: int, study: Study) -> list[str]:
    for step in range(3):
        rows = np.sort(_drawn(sampler, keys, step, study))
        if not np.array_equal(rows, np.arange(num)):
            return ["a full batch does not hold every unit once"]
    return []


def _coins(drawn: list[NDArray[np.int64]], num: int, rate: float) -> list[str]:
    taken = np.zeros((len(drawn), num), dtype=bool)
    for step, rows in enumerate(drawn):
        if len(np.unique(rows)) != len(rows):
            return ["a unit was drawn twice in one step"]
        taken[step, rows] = True
    found = []
    if not chance.binomial_fits(int(taken.sum()), taken.size, rate):
        share = taken.mean() / rate
        found.append(f"units are drawn at {share:.3f} of the rate that is charged")
    counts = taken.sum(0)
    for count in (int(counts.min()), int(counts.max())):
        if not chance.binomial_fits(count, len(drawn), rate, among=num):
            found.append("one unit is drawn more or less often than the others")
    both = int((taken[0::2] & taken[1::2]).sum())
    if not chance.binomial_fits(both, num * len(drawn) // 2, rate * rate):
        found.append("a draw hangs on the one before it")
    if not chance.spread_fits([len(rows) for rows in drawn], num, rate):
        found.append("batch sizes do not vary as those of independent coins do")
    return found


def _cap(setting: Setting) -> list[str]:
    """Of a person with many records a step takes at most the cap, not always the same.

    Equal choices in all 32 steps are left to a cap of 1 of 5 records at most: 5**-31.
    """
    most = setting.study.privacy.max_records
    if most is None:
        return []
    num, keys = most + 4, setting.make_keys()
    nothing = np.zeros((num, 0), dtype=np.float32)
    one = Examples(nothing, np.zeros(num, np.float32), np.full(num, 77, np.int64))
    sampler = Sampler(setting.with_everybody_drawn().study, one)
    rows = [np.sort(sampler.draw(keys, step).rows) for step in range(32)]
    if any(len(r) != min(most, num) or len(np.unique(r)) != len(r) for r in rows):
        return ["a step takes more records of a person than the cap says"]
    if len({r.tobytes() for r in rows}) == 1:
        return ["every step takes the same records of a person"]
    return []


def _site(setting: Setting, some: Examples) -> list[str]:
    """One coin for the whole site."""
    rate, keys = setting.study.training.sample_rate, setting.make_keys()
    sampler = Sampler(setting.study, some)
    sizes = [len(sampler.draw(keys, step).rows) for step in range(512)]
    if not set(sizes) <= {0, len(some)}:
        return ["a part of the site was drawn"]
    there = sum(size > 0 for size in sizes)
    fits = there == len(sizes)
    if rate < 1:
        fits = chance.binomial_fits(there, len(sizes), rate)
    return [] if fits else ["the site is not drawn at the rate that is charged"]


def _turn_uses_the_sampler(
    setting: Setting, some: Examples, weights: Weights
) -> list[str]:
    steps, keys = min(4, setting.study.training.local_steps), setting.make_keys()
    short = setting.with_schedule(local_steps=steps)
    seen, _ = observe(short, some, weights, keys)
    sampler = Sampler(short.study, some)
    wanted = [np.sort(sampler.draw(keys, step).rows) for step in range(steps)]
    if len(seen) != steps:
        return ["a turn takes another number of steps than is charged"]
    read = [np.unique(s.rows) for s in seen]
    if not all(map(np.array_equal, read, wanted)):
        return ["a step does not read the rows that the accounted sampler drew"]
    if len({w.tobytes() for w in wanted}) == 1 and _should_differ(setting, some):
        return ["every step draws the same units"]
    return []


def _should_differ(setting: Setting, some: Examples) -> bool:
    """Whether equal draws in all of a turn's steps would be less likely than a share.

    One step equals the one before it with (q**2 + (1 - q)**2)**units.
    """
    rate = setting.study.training.sample_rate
    steps = min(4, setting.study.training.local_steps)
    equal = rate**2 + (1 - rate) ** 2
    return steps > 1 and equal ** (len(some) * (steps - 1)) < chance.SHARE
