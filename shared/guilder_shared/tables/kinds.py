"""Every kind of data by the same four questions: columns, types, cells, examples.

Tables, images and texts each have a module of their own; this one only chooses. It
opens no file.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from guilder_shared.study import ColumnData, Data, ImageData, TableData, TextData
from guilder_shared.tables import columns, contract, pictures, sentences
from guilder_shared.tasks import Examples

if TYPE_CHECKING:
    import pyarrow as pa


def needed(data: Data) -> tuple[str, ...]:
    """The contract's columns that training reads; the last may be the person."""
    if isinstance(data, ImageData):
        return pictures.needed(data)
    if isinstance(data, TextData):
        return sentences.needed(data)
    if isinstance(data, ColumnData):
        return columns.needed(data)
    return contract.needed(data)


def check_types(fields: Mapping[str, "pa.Field"], data: Data) -> None:
    """Check that each column's type can hold what the contract allows.

    Raises:
        DataError: GLD-D004, with the type and no cell.
    """
    if isinstance(data, ImageData):
        pictures.check_types(fields, data)
    elif isinstance(data, TextData):
        sentences.check_types(fields, data)
    elif isinstance(data, ColumnData):
        columns.check_types(fields, data)
    else:
        contract.check_types(fields, data)


def check(table: "pa.Table", data: Data) -> None:
    """Check a table's columns against the contract: names and types, no cell.

    Raises:
        DataError: GLD-D003 a column is missing, GLD-D004 a column's type can hold no
            value that the contract allows.
    """
    names = needed(data)
    contract.check_present(
        {name: name for name in names}, table.column_names, where="table"
    )
    check_types({name: table.schema.field(name) for name in names}, data)


def check_cells(table: "pa.Table", data: Data) -> None:
    """Check that cells hold what they should at all.

    For public rows, and for the eyes of the engineer whose rows they are: unlike
    `check` the outcome depends on rows, so it must never reach a server or decide
    whether a turn runs.

    Raises:
        DataError: As `check`; GLD-D004 or GLD-D026 where most cells do not fit.
    """
    check(table, data)
    if isinstance(data, ImageData):
        pictures.check_cells(table, data)
    elif isinstance(data, TextData):
        sentences.check_cells(table, data)
    elif isinstance(data, TableData):
        contract.check_cells(table, data)


def encode(table: "pa.Table", data: Data) -> Examples:
    """Turn rows into examples by the contract's public rule; see each kind's own.

    Privacy: record i enters one row of the result, or none, and moves no other. No
    cell raises.

    Raises:
        DataError: As `check`.
        StudyError: A text's tokenizer is not installed here.
    """
    check(table, data)
    if isinstance(data, ImageData):
        return pictures.encode(table, data)
    if isinstance(data, TextData):
        return sentences.encode(table, data)
    if isinstance(data, ColumnData):
        return columns.encode(table, data)
    return contract.encode(table, data)
