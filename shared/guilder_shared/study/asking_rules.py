"""What [statistics] must agree on with the rest of a study. Knows no data."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from guilder_shared.settings.mistakes import Contradiction
from guilder_shared.study.asking import Histogram, Quantiles, Statistics
from guilder_shared.study.data import ColumnData, Data, NumberColumn
from guilder_shared.study.parts import Header, Privacy

RECIPE = "statistics"


def statistics_are_whole(
    study: Header, data: Data, statistics: Statistics | None
) -> list[Contradiction]:
    """Recipe, kind of data and questions belong together."""
    signs = (
        study.recipe == RECIPE,
        isinstance(data, ColumnData),
        statistics is not None,
    )
    if len(set(signs)) == 1:
        return []
    what = "only one or two of the three parts of a study of statistics are there"
    fix = (
        'Write recipe = "statistics", data.kind = "columns" and [statistics], or none.'
    )
    return [Contradiction(("study", "recipe"), what, fix, "GLD-C134")]


def questions_fit_their_columns(
    data: Data, statistics: Statistics | None
) -> list[Contradiction]:
    """A number has bounds and edges, a category has values."""
    if statistics is None or not isinstance(data, ColumnData):
        return []
    return [
        Contradiction(("statistics", "ask", name), what, fix, "GLD-C135")
        for name, question in statistics.ask.items()
        for what, fix in _wrong(question, data)
    ]


def _wrong(question: Any, data: ColumnData) -> Iterator[tuple[str, str]]:
    name = getattr(question, "column", None)
    if name is None:
        return
    column = data.columns.get(name)
    if column is None:
        yield f'asks about "{name}"', "Name one of [data.columns]."
        return
    is_number = isinstance(column, NumberColumn)
    if not is_number and not isinstance(question, Histogram):
        yield "asks a number of a category", 'Ask for a histogram: ask = "histogram".'
    edges = question.edges if isinstance(question, Histogram | Quantiles) else None
    if isinstance(question, Histogram) and is_number == (edges is None):
        word = "has no" if is_number else "has"
        yield f"{word} edges", "Numbers need edges, categories have their values."
    if edges is not None and any(low >= high for low, high in pairwise(edges)):
        yield "its edges do not rise", "Write each edge above the one before."


def noise_fits_the_questions(
    privacy: Privacy, statistics: Statistics | None
) -> list[Contradiction]:
    """Whole-number noise needs whole counts, to each of which a unit adds at most 1."""
    if statistics is None:
        return []
    where, found = ("statistics", "noise"), []
    counts = all(each.ask != "mean" for each in statistics.ask.values())
    if statistics.noise != "gaussian" and (privacy.unit != "record" or not counts):
        what = f'is "{statistics.noise}", which is for counts of single records'
        fix = 'Write noise = "gaussian".'
        found.append(Contradiction(where, what, fix, "GLD-C136"))
    if privacy.unit == "site" or privacy.mechanism != "site-noise":
        what = "with units or a mechanism that statistics do not have"
        fix = 'Write unit = "record" or "person", and mechanism = "site-noise".'
        found.append(Contradiction(("privacy", "unit"), what, fix, "GLD-C136"))
    return found
