"""Targets that are classes, and rows without a person: which rows count, one by one.

A class is one of the study's public values; a row of no class is left out by that
public rule, which sees the row alone. This module opens no file.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from guilder_shared.errors import DataError
from guilder_shared.tables import persons

if TYPE_CHECKING:
    import pyarrow as pa


def classes(column: "pa.ChunkedArray", values: Sequence[str]) -> NDArray[np.int64]:
    """The number of each row's class; -1 for a row of none.

    Args:
        column: Text, whole numbers or booleans; blanks around a text do not count.
        values: The public classes, as texts.

    Returns:
        Shape (rows,). No cell raises.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    # Bytes, because a Parquet file may hold text that is no UTF-8.
    cells = pc.cast(pc.cast(column, pa.large_string()), pa.large_binary())
    found = pc.dictionary_encode(cells).combine_chunks()
    if isinstance(found, pa.ChunkedArray):  # no chunk at all
        return np.empty(0, dtype=np.int64)
    number = {value.encode(): place for place, value in enumerate(values)}
    names = [number.get(cell.strip(), -1) for cell in found.dictionary.to_pylist()]
    numbers = np.array([*names, -1], dtype=np.int64)
    places = pc.fill_null(found.indices, len(names)).to_numpy(zero_copy_only=False)
    of_row: NDArray[np.int64] = numbers[places]
    return of_row


def with_person(
    table: "pa.Table", person: str | None, kept: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.int64] | None]:
    """The rows that stay and, where the contract names the person, whose they are.

    Args:
        table: All rows.
        person: The column, or None.
        kept: Rows that stay for other reasons, shape (rows,).

    Returns:
        The rows that stay, and their persons' numbers or None.
    """
    if person is None:
        return kept, None
    units, named = persons.units(table.column(person))
    kept = kept & named
    return kept, units[kept]


def may_be_class(kind: Any) -> bool:
    """Whether a column of this Arrow type can hold a class."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        fits(kind)
        for fits in (
            types.is_string,
            types.is_large_string,
            types.is_integer,
            types.is_boolean,
            types.is_null,
        )
    )


def check_share(name: str, kept: NDArray[np.bool_]) -> None:
    """For public rows, or the eyes of the engineer whose rows they are.

    Raises:
        DataError: GLD-D026, fewer than half of the rows fit the contract.
    """
    if len(kept) and 2 * int(kept.sum()) < len(kept):
        raise DataError(
            "GLD-D026",
            f"most rows do not fit the contract: look at column {name!r}",
            why="a row that does not fit is left out of training",
            fix="compare the column with [data] of the study, or map another one",
        )
