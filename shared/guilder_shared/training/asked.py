"""Statistics of columns: what is counted for each question, released, and read off.

A site counts and noises once; the server adds the sites' vectors and reads answers off
the sum. This module reads no file, charges nothing and sends nothing. No torch.

Review, mathematics. With Gaussian noise every question is a block of public bound, all
released jointly: one draw, one event (`privacy.statistics`). A person counts as the
mean of its rows. With Laplace or discrete Gaussian noise the units are single records
and every question is a row of cells of which a record is in one at most: whole counts,
each question one more mechanism on the same draw, whole noise drawn exactly
(`privacy.exact`). A cell that is missing or no number is in no count but `count`. What
is read off is post-processing. Public: questions, edges, bounds, noise. Secret: rows.
Review, crash order: in memory only; the caller has charged the release before rows were
read, and seals the vector before it sends it.
"""

import math

import numpy as np

from guilder_shared.privacy import exact, statistics
from guilder_shared.privacy.statistics import Block, Numbers
from guilder_shared.study import CategoryColumn, ColumnData, NumberColumn, Study
from guilder_shared.study.asking import Histogram, Mean, Quantiles, Question, Statistics
from guilder_shared.tasks import Examples


def widths(study: Study) -> dict[str, int]:
    """How many numbers each question's part of the release has, in their order."""
    statistics_, data = _asked(study)
    return {name: _width(each, data) for name, each in statistics_.ask.items()}


def release(
    study: Study, rows: Examples, *, noise_multiplier: float, key: bytes
) -> Numbers:
    """Count what is asked and noise it, once.

    Args:
        study: With questions.
        rows: Cells as numbers (`tables.columns`); none is allowed.
        noise_multiplier: As charged.
        key: 32 bytes, used for this release only.

    Returns:
        Shape (numbers of all questions,), private as the study's turn event says.

    Raises:
        PlanError: GLD-P090 the noise hides nobody.
    """
    asked, data = _asked(study)
    places = {name: place for place, name in enumerate(data.columns)}
    blocks = [
        _block(name, each, data, rows, places) for name, each in asked.ask.items()
    ]
    if asked.noise == "gaussian":
        if rows.units is not None:
            blocks = statistics.averaged(blocks, rows.units)
        found = statistics.release(blocks, noise_multiplier, key, rows.units)
        return np.concatenate([found[name] for name in asked.ask])
    counts = np.concatenate([block.rows.sum(axis=0) for block in blocks])
    noised = exact.noised(counts.astype(np.int64), asked.noise, noise_multiplier, key)
    return noised.astype(np.float64)


def answers(study: Study, total: Numbers) -> dict[str, float]:
    """What the sum of all sites' releases says.

    Args:
        study: As for `release`.
        total: The sum, shape (numbers of all questions,).

    Returns:
        By name: `NAME` of a count, `NAME.mean` and `NAME.variance`, `NAME.VALUE` of a
        category's histogram and `NAME.1`, `NAME.2`, ... of a number's cells,
        `NAME.0.5` of a quantile. Counts as noised, which may be below zero; a figure
        that the noise left without meaning is left out.
    """
    asked, data = _asked(study)
    ends = np.cumsum(list(widths(study).values()))[:-1]
    found: dict[str, float] = {}
    parts = np.split(total, ends)
    for (name, question), part in zip(asked.ask.items(), parts, strict=True):
        for suffix, value in _answer(question, part, data).items():
            found[name + suffix] = value
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _asked(study: Study) -> tuple[Statistics, ColumnData]:
    assert study.statistics is not None
    assert isinstance(study.data, ColumnData)
    return study.statistics, study.data


def _width(question: Question, data: ColumnData) -> int:
    if isinstance(question, Mean):
        return 3
    if isinstance(question, Histogram | Quantiles):
        return len(_edges(question, data)) - 1
    return 1


def _edges(question: Histogram | Quantiles, data: ColumnData) -> list[float]:
    """Of the cells; a category's values are cells around their places."""
    column = data.columns[question.column]
    if isinstance(column, CategoryColumn):
        return [place - 0.5 for place in range(len(column.values) + 1)]
    return list(question.edges or ())


def _block(
    name: str,
    question: Question,
    data: ColumnData,
    rows: Examples,
    places: dict[str, int],
) -> Block:
    if isinstance(question, Mean):
        column = data.columns[question.column]
        assert isinstance(column, NumberColumn)
        values = rows.inputs[:, places[question.column]]
        return statistics.moments(name, values, column.low, column.high)
    if isinstance(question, Histogram | Quantiles):
        values = rows.inputs[:, places[question.column]]
        return statistics.histogram(name, values, _edges(question, data))
    return statistics.count(name, len(rows))


def _answer(question: Question, part: Numbers, data: ColumnData) -> dict[str, float]:
    if isinstance(question, Mean):
        column = data.columns[question.column]
        assert isinstance(column, NumberColumn)
        if part[0] < 1:
            return {}
        both = statistics.mean_and_variance(part, column.low, column.high)
        return {".mean": both[0], ".variance": both[1]}
    if isinstance(question, Quantiles):
        edges = _edges(question, data)
        return {f".{at:g}": statistics.quantile(part, edges, at) for at in question.at}
    if isinstance(question, Histogram):
        column = data.columns[question.column]
        values = getattr(column, "values", None) or range(1, len(part) + 1)
        pairs = zip(values, part, strict=True)
        return {f".{value}": float(number) for value, number in pairs}
    return {"": float(part[0])}
