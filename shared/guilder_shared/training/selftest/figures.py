"""Figures of rows: is their noise what is charged, and what does one unit move?

Looks at what a site would send: the noised vector of a study of statistics, or of
charged metrics, made by the product's own code from made-up rows. This module changes
nothing.

Review, mathematics. A site without rows releases noise alone; over each number's public
scale it is Gaussian of the charged deviation on the charged grid (`noise.law`, 16
tails), or whole noise of a known law: its tails and sign, and how often two numbers are
equal, are counts of independent trials (at most 16 tails). What one unit moves is the
difference of two releases under one key, whose noise is the same: at most 1 (L2) in all
over the scales, or one count in one cell of each question, but for the grid's rounding
of what moved. What a unit adds does not hang on the others: nothing is divided by how
many there are. No chance in these: no false alarms.
Review, crash order: in memory only.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from guilder_shared.messages import Weights
from guilder_shared.privacy.events import GAUSSIAN, LAPLACE, MIN_NOISE_MULTIPLIER
from guilder_shared.privacy.noise import grid_for
from guilder_shared.study import ColumnData, NumberColumn, Study
from guilder_shared.study.asking import Mean
from guilder_shared.tasks import Examples
from guilder_shared.training import asked, charged
from guilder_shared.training.selftest import chance, noise, source, trial
from guilder_shared.training.selftest.trial import Setting, seeded_globals

if TYPE_CHECKING:
    import pyarrow as pa

Numbers = NDArray[np.float64]
UNITS = 8
ROWS_OF_A_PERSON = 3
ENOUGH = 2048  # numbers of noise; tells a deviation that is off by a tenth
QUIET = MIN_NOISE_MULTIPLIER  # its grid is the finest: what a unit moves shows
EXTREMES = (math.inf, -math.inf, math.nan, 1e300, -1e300)
Release = Callable[[Examples, float, bytes], Numbers]


@dataclass(frozen=True)
class Figures:
    """What a study releases of rows, as public constants.

    Attributes:
        release: Of rows, with a noise multiplier and a key.
        parts: Each question's or block's share of the vector, in order.
        scales: What a number has to be divided by, for a unit to move 1 in all.
        kind: Of the noise.
        noise_multiplier: As charged.
    """

    release: Release
    parts: tuple[slice, ...]
    scales: Numbers
    kind: str
    noise_multiplier: float


def of_statistics(setting: Setting) -> Figures:
    """Of a study that asks for figures."""
    study, plan = setting.study, setting.plan
    assert study.statistics is not None
    assert plan.noise_multiplier is not None

    def release(rows: Examples, multiplier: float, key: bytes) -> Numbers:
        return asked.release(study, rows, noise_multiplier=multiplier, key=key)

    kind = study.statistics.noise
    asks = study.statistics.ask.values()
    # a count and a cell move by 1; of a value in [-1, 1]: 1, itself and its square
    bounds = [math.sqrt(3) if isinstance(ask, Mean) else 1.0 for ask in asks]
    if kind != GAUSSIAN:
        bounds = [1 / math.sqrt(len(bounds))] * len(bounds)  # each question by itself
    widths = asked.widths(study)
    return _figures(release, widths, bounds, kind, plan.noise_multiplier)


def of_metrics(setting: Setting, weights: Weights) -> Figures:
    """Of a study that measures held-out units, at these weights."""
    study, plan = setting.study, setting.plan
    assert plan.measuring_noise is not None

    def release(rows: Examples, multiplier: float, key: bytes) -> Numbers:
        given = {"noise_multiplier": multiplier, "key": key}
        return charged.release(weights, study, rows, **given)  # type: ignore[arg-type]

    largest = study.evaluation.largest_loss or charged.LARGEST_LOSS
    widths = charged.widths(study)
    bounds = [largest if name == "losses" else 1.0 for name in widths]
    return _figures(release, widths, bounds, GAUSSIAN, plan.measuring_noise)


def _figures(
    release: Release,
    widths: dict[str, int],
    bounds: list[float],
    kind: str,
    noise_multiplier: float,
) -> Figures:
    ends = [0, *np.cumsum(list(widths.values())).tolist()]
    scales = np.repeat(bounds, list(widths.values())) * math.sqrt(len(widths))
    parts = tuple(slice(start, end) for start, end in pairwise(ends))
    return Figures(release, parts, scales, kind, noise_multiplier)


def check_statistics(setting: Setting) -> list[str]:
    """What is wrong with a study that asks for figures; nothing, if all is well."""
    figures = of_statistics(setting)
    rows_each = _rows_each(setting.study)
    table = source.table(setting.study, UNITS, rows_each=rows_each)
    found = _noise(setting, figures, source.examples(setting.study, table.slice(0, 0)))
    for where, some in (("", table), (" of extreme values", _extreme(table, setting))):
        found += _removed(setting.study, figures, some, where)
    return found + _ranges(setting.study, figures, table)


def check_metrics(setting: Setting, weights: Weights, *, until: float) -> list[str]:
    """What is wrong with charged metrics; nothing, if all is well.

    Args:
        setting: The real study.
        weights: To start from.
        until: On the monotonic clock: when to stop removing further units.
    """
    rows_each = _rows_each(setting.study)
    table = source.table(setting.study, UNITS, rows_each=rows_each)
    nobody = source.examples(setting.study, table.slice(0, 0))
    found = _noise(setting, of_metrics(setting, weights), nobody)
    for where, some in (
        ("", weights),
        (" at hostile weights", trial.cancelling(weights)),
        (" at weights that overflow", trial.exploding(weights)),
    ):
        figures = of_metrics(setting, some)
        found += _removed(setting.study, figures, table, where, until=until)
    return found


def _rows_each(study: Study) -> int:
    return ROWS_OF_A_PERSON if study.privacy.unit == "person" else 1


def _noise(setting: Setting, figures: Figures, nobody: Examples) -> list[str]:
    """What is released of nobody, twice under equal seeds of every global generator."""
    num = max(2, math.ceil(ENOUGH / 2 / len(figures.scales)))
    halves = []
    for _ in range(2):
        with seeded_globals(7):  # the same for both: nothing may come from there
            told = [
                figures.release(
                    nobody,
                    figures.noise_multiplier,
                    setting.make_keys().key("metrics", 0),
                )
                for _ in range(num)
            ]
        halves.append(np.stack(told) / figures.scales)
    first, second = halves
    if figures.kind != GAUSSIAN:
        return _whole_law(figures, first, second)
    found = noise.repeats(first, second)
    return found + noise.law(np.concatenate(halves), figures.noise_multiplier)


def _whole_law(figures: Figures, first: Numbers, second: Numbers) -> list[str]:
    drawn = np.concatenate([first, second])
    if (drawn != np.rint(drawn)).any():
        return ["the noise on whole counts is not whole"]
    beyond = _beyond(figures.kind, figures.noise_multiplier)
    found = []
    if not chance.binomial_fits(int((drawn > 0).sum()), drawn.size, beyond[1] / 2):
        found.append("the noise leans to one side, or is of another size than charged")
    for far in sorted({max(1, round(n * len(beyond) / 24)) for n in (1, 2, 4, 8, 12)}):
        count = int((np.abs(drawn) >= far).sum())
        if not chance.binomial_fits(count, drawn.size, float(beyond[far])):
            found.append(f"too few or too many numbers of the noise reach {far}")
    sizes = np.append(beyond[:-1] - beyond[1:], beyond[-1])
    alike = float(sizes[0] ** 2 + (sizes[1:] ** 2).sum() / 2)
    even = drawn[:, : drawn.shape[1] // 2 * 2]
    for what, one, other in (
        ("two releases", first, second),
        ("two numbers of a release", even[:, ::2], even[:, 1::2]),
    ):
        same = int((one == other).sum())
        if one.size and not chance.binomial_fits(same, one.size, alike):
            found.append(f"{what} have the same noise too often or too seldom")
    return found


def _beyond(kind: str, noise_multiplier: float) -> Numbers:
    """The chance that whole noise reaches 0, 1, 2, ... to either side; far enough."""
    if kind == LAPLACE:
        sizes = np.arange(1, max(24, math.ceil(24 * noise_multiplier)))
        return np.append(1.0, np.exp((0.5 - sizes) / noise_multiplier))
    sizes = np.arange(0, max(24, math.ceil(12 * noise_multiplier)))
    shares = np.exp(-((sizes / noise_multiplier) ** 2) / 2)
    shares[1:] *= 2
    tails: Numbers = np.cumsum(shares[::-1])[::-1] / shares.sum()
    return tails


def _removed(
    study: Study,
    figures: Figures,
    table: "pa.Table",
    where: str,
    *,
    until: float = math.inf,
) -> list[str]:
    """Take each unit out of the source; what moved, and what it adds by itself."""
    each = _rows_each(study)
    every = _told(study, figures, table)
    nobody = _told(study, figures, table.slice(0, 0))
    for unit in range(UNITS):
        if unit and time.monotonic() > until:
            break
        left = source.without(table, unit, rows_each=each)
        own = source.alone(table, unit, rows_each=each)
        moved = every - _told(study, figures, left)
        adds = _told(study, figures, own) - nobody
        if not (np.isfinite(moved).all() and np.isfinite(adds).all()):
            return [f"a figure{where} is not finite"]
        for size, most, step in _sizes(figures, moved):
            if size > most + step:
                return [
                    f"one unit{where} moves figures by {size:.3f} of what is charged"
                ]
        off = np.abs(moved - adds).max()
        if off > 2.001 * _step(figures):
            return [f"what one unit{where} adds to figures hangs on the others"]
    return []


def _sizes(figures: Figures, moved: Numbers) -> Iterator[tuple[float, float, float]]:
    """How far one unit moves what is bounded together, the bound, and rounding."""
    if figures.kind == GAUSSIAN:
        num = np.count_nonzero(moved)  # what does not move is rounded alike
        yield float(np.linalg.norm(moved)), 1.0, _step(figures) * math.sqrt(num)
        return
    for part in figures.parts:
        yield float(np.abs(moved[part]).sum()), 1.0, 0.0


def _step(figures: Figures) -> float:
    return grid_for(QUIET) if figures.kind == GAUSSIAN else 0.0


def _told(study: Study, figures: Figures, table: "pa.Table") -> Numbers:
    rows = source.examples(study, table)
    return figures.release(rows, QUIET, bytes(32)) / figures.scales


def _extreme(table: "pa.Table", setting: Setting) -> "pa.Table":
    """The same units, their numbers as far out as numbers go."""
    values = np.resize(EXTREMES, table.num_rows)
    return _with_numbers(setting.study, table, lambda _: values)


def _ranges(study: Study, figures: Figures, table: "pa.Table") -> list[str]:
    """A value beyond its column's public bounds counts as the bound, in a mean."""
    assert study.statistics is not None
    asks = study.statistics.ask.values()
    for end, far in (("low", -3.0), ("high", 3.0)):
        told = []
        for out in (0.0, far):
            make = partial(_at, end, out, table.num_rows)
            told.append(_told(study, figures, _with_numbers(study, table, make)))
        off = told[1] - told[0]
        for ask, part in zip(asks, figures.parts, strict=True):
            if isinstance(ask, Mean) and off[part].any():
                return [f"a value beyond a column's {end} does not count as the bound"]
    return []


def _at(end: str, out: float, num: int, column: NumberColumn) -> Numbers:
    """Cells at one end of a column's bounds, or beyond it by so many widths."""
    return np.full(num, getattr(column, end) + out * (column.high - column.low))


def _with_numbers(
    study: Study, table: "pa.Table", make: Callable[[Any], Numbers]
) -> "pa.Table":
    import pyarrow as pa

    assert isinstance(study.data, ColumnData)
    for place, name in enumerate(table.column_names):
        column = study.data.columns.get(name)
        if isinstance(column, NumberColumn):
            cells = pa.array(make(column), pa.float64())
            table = table.set_column(place, name, cells)
    return table
