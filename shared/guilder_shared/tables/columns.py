"""Columns that are asked about: their cells as numbers, one by one.

A number stays as it is, a category becomes its place among the public values; what is
neither is NaN, which no question counts. Row i depends on row i alone. This module
opens no file.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from guilder_shared.study import CategoryColumn, ColumnData, TableData
from guilder_shared.tables import answers, contract
from guilder_shared.tasks import Examples

if TYPE_CHECKING:
    import pyarrow as pa

_NOTHING = "\x00"  # no column has this name


def needed(data: ColumnData) -> tuple[str, ...]:
    """The contract's columns; the last may be the person."""
    return (*data.columns, *(() if data.person is None else (data.person,)))


def check_types(fields: Mapping[str, "pa.Field"], data: ColumnData) -> None:
    """Check that each column's type can hold what the contract allows.

    Raises:
        DataError: GLD-D004, with the type and no cell.
    """
    as_table = TableData.model_construct(
        kind="table",
        dataset=data.dataset,
        target=_NOTHING,
        classes=None,
        person=data.person,
        columns=data.columns,
    )
    contract.check_types(fields, as_table)


def encode(table: "pa.Table", data: ColumnData) -> Examples:
    """Turn rows into numbers; a row without a person is left out, where one is named.

    Returns:
        Inputs of shape (rows, columns), float64, in the contract's order, with NaN for
        what is missing; targets of zeros, which nobody reads.
    """
    parts = []
    for name, column in data.columns.items():
        if isinstance(column, CategoryColumn):
            places = answers.classes(table.column(name), column.values)
            parts.append(np.where(places < 0, np.nan, places.astype(np.float64)))
        else:
            parts.append(contract.numbers(table, name))
    every = np.ones(table.num_rows, dtype=np.bool_)
    kept, units = answers.with_person(table, data.person, every)
    inputs = np.stack(parts, axis=1)[kept]
    return Examples(inputs, np.zeros(len(inputs), np.float32), units)
