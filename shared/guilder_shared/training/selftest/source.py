"""Made-up rows for a self-test: a table as a site could hold it, then the real encoder.

Rows hold what rows do: missing cells, values out of bounds, unknown categories, targets
that are none. Which rows is public and always the same. No file of a site is opened.

Review, mathematics: nothing here is private.
Review, crash order: in memory only.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from guilder_shared import tables
from guilder_shared.study import Study
from guilder_shared.tasks import Examples

if TYPE_CHECKING:
    import pyarrow as pa

_SEED = 1729  # public


def table(study: Study, num_units: int, *, rows_each: int = 1) -> "pa.Table":
    """Rows of some units, in the columns that the study's contract names.

    Args:
        study: Names the columns; `unit` says whether rows have a person.
        num_units: Units: records, or persons. For a site it is the number of records.
        rows_each: Rows of each unit, next to each other.
    """
    import pyarrow as pa

    data: Any = study.site_contract
    num = num_units * rows_each
    rng = np.random.Generator(np.random.PCG64(_SEED))
    columns: dict[str, Any] = {}
    if data.kind in ("table", "columns"):
        for name, column in data.columns.items():
            columns[name] = _cells(column, num, rng)
    if data.kind == "table":
        columns[data.target] = (
            pa.array(rng.integers(0, 2, num), pa.int64())
            if data.classes is None
            else _classes(data.classes, num, rng)
        )
    elif data.kind == "images":
        size = data.height * data.width
        columns[data.image] = _bytes(rng, num, size * data.channels)
        columns[data.target] = (
            _bytes(rng, num, size)
            if data.classes is None
            else _classes(data.classes, num, rng)
        )
    elif data.kind == "texts":
        columns[data.text] = _texts(num, data.max_tokens, rng)
        columns[data.target] = _classes(data.classes, num, rng)
    if data.person is not None:
        persons = np.repeat(np.arange(num_units), rows_each)
        columns[data.person] = pa.array([f"p{i}" for i in persons], pa.string())
    return pa.table(columns)


def without(whole: "pa.Table", unit: int, *, rows_each: int = 1) -> "pa.Table":
    """The same source as if this unit had never been in it."""
    import pyarrow as pa

    first = unit * rows_each
    parts = [whole.slice(0, first), whole.slice(first + rows_each)]
    return pa.concat_tables(parts)


def alone(whole: "pa.Table", unit: int, *, rows_each: int = 1) -> "pa.Table":
    """The same source as if there were nobody but this unit."""
    return whole.slice(unit * rows_each, rows_each)


def examples(study: Study, source: "pa.Table") -> Examples:
    """The source as a turn sees it: encoded and prepared by the product's own code."""
    return _prepared(tables.encode(source, study.site_contract), study)


def _prepared(encoded: Examples, study: Study) -> Examples:
    if getattr(study.model, "train", None) != "head":
        return encoded
    from guilder_shared.models import features

    return features.prepare(encoded, study)


def _cells(column: Any, num: int, rng: np.random.Generator) -> Any:
    """A column's cells; one in eight is missing, out of bounds or unknown."""
    import pyarrow as pa

    odd = rng.random(num) < 1 / 8
    if column.kind == "category":
        values = np.array([*column.values, "none of these"], dtype=object)
        chosen = rng.integers(0, len(column.values), num)
        chosen[odd] = len(column.values)
        return pa.array(values[chosen].tolist(), pa.string())
    width = column.high - column.low
    cells = rng.uniform(column.low, column.high, num)
    cells[odd] += rng.choice([-3 * width, 3 * width, np.nan], int(odd.sum()))
    return pa.array(cells, pa.float64())


def _classes(values: Any, num: int, rng: np.random.Generator) -> Any:
    import pyarrow as pa

    chosen = rng.integers(0, len(values), num)
    return pa.array([values[i] for i in chosen], pa.string())


def _bytes(rng: np.random.Generator, num: int, size: int) -> Any:
    import pyarrow as pa

    return pa.array([rng.bytes(size) for _ in range(num)], pa.binary())


def _texts(num: int, most: int, rng: np.random.Generator) -> Any:
    """Texts of made-up words, of different lengths."""
    import pyarrow as pa

    syllables = ("ba", "ke", "li", "mo", "nu", "ra", "se", "ti")
    lengths = rng.integers(1, min(most, 24) + 1, num)
    found = [
        " ".join("".join(rng.choice(syllables, 2)) for _ in range(length))
        for length in lengths
    ]
    return pa.array(found, pa.string())
