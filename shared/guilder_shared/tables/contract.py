"""The contract: what a table must look like, and how its rows become numbers.

Every encoded row is a function of its own cells and of public constants: nothing
here learns from other rows, counts them, or stops because of one of them. Errors
name columns and types, never a cell. This module opens no file.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from guilder_shared.errors import DataError
from guilder_shared.study import CategoryColumn, Column, NumberColumn, TableData
from guilder_shared.tables import answers, persons
from guilder_shared.tasks import Examples

if TYPE_CHECKING:
    import pyarrow as pa

# A CSV file has no types: its columns arrive as text and carry this mark, so that
# their cells are read one by one. Text without it is text, and no number.
UNTYPED = {b"guilder.cells": b"untyped"}
# What a CSV cell must look like to be a number, blanks around it aside. Anything
# else, "nan" and "inf" included, is a missing value.
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"


def needed(data: TableData) -> tuple[str, ...]:
    """The contract's columns that training reads: inputs in order, then the target.

    Last the person, where the contract names one (`Study.site_contract`).
    """
    person = () if data.person is None else (data.person,)
    return (*data.columns, data.target, *person)


def check(table: "pa.Table", data: TableData) -> None:
    """Check a table's columns against the contract: names and types, no cell.

    Raises:
        DataError: GLD-D003 a column is missing, GLD-D004 a column's type can hold no
            value that the contract allows.
    """
    names = needed(data)
    check_present({name: name for name in names}, table.column_names, where="table")
    check_types({name: table.schema.field(name) for name in names}, data)


def check_cells(table: "pa.Table", data: TableData) -> None:
    """Check that number columns of a CSV file hold numbers at all.

    For public rows, and for the eyes of the engineer whose rows they are: unlike
    `check` the outcome depends on rows, so it must never reach a server or decide
    whether a turn runs.

    Raises:
        DataError: As `check`; GLD-D004 fewer than half of the filled cells of a
            number column, or of the target, read as numbers; GLD-D026 fewer than half
            of the rows have one of the contract's classes.
    """
    import pyarrow.compute as pc

    check(table, data)
    for name in needed(data):
        column = table.column(name)
        if not _is_untyped(table.schema.field(name)) or not _is_number(name, data):
            continue
        filled = len(column) - column.null_count
        numbers = pc.sum(pc.match_substring_regex(_trimmed(column), NUMBER)).as_py()
        if filled and 2 * (numbers or 0) < filled:
            raise _wrong_type(name, "text", "numbers")
    if data.classes is not None:
        answers.check_share(data.target, _targets(table, data) >= 0)


def encode(table: "pa.Table", data: TableData) -> Examples:
    """Turn rows into inputs and targets by the contract's public rule.

    Numbers are clipped to [low, high] and scaled to [-1, 1]; missing and NaN become
    0, the centre; a category becomes one-hot, an unknown or missing one all zeros. A
    row whose target is not 0 or 1, or none of the contract's classes, is left out,
    and so is, where the contract names the person, a row without one. Inputs stand in
    the contract's order, which is canonical: not that of the study file. Row i depends
    on row i alone.

    Privacy: record i enters one row of the result, or none, and moves no other, so
    adding or removing it upstream adds or removes one example; a person upstream is
    one number of `units`. No cell raises.

    Args:
        table: Interchange rows; columns outside the contract are ignored.
        data: The contract.

    Returns:
        Inputs of shape (rows, inputs), float32, in [-1, 1]; targets of shape
        (rows,), float32, 0 or 1 or the number of the class; units of shape (rows,),
        int64, where the contract names the person. Zero rows are fine.

    Raises:
        DataError: As `check`.
    """
    check(table, data)
    target = _targets(table, data)
    kept, units = answers.with_person(table, data.person, target >= 0)
    blocks = [_encode_column(table, *column) for column in data.columns.items()]
    inputs = np.concatenate(blocks, axis=1)[kept]
    wanted = target[kept].astype(np.float32)
    return Examples(np.ascontiguousarray(inputs), wanted, units)


def _targets(table: "pa.Table", data: TableData) -> np.ndarray:
    """0 or 1, or the number of the class; -1 for a row that has neither."""
    if data.classes is not None:
        return answers.classes(table.column(data.target), data.classes)
    target = numbers(table, data.target)
    return np.where((target == 0) | (target == 1), target, -1)


def _encode_column(table: "pa.Table", name: str, column: Column) -> np.ndarray:
    if isinstance(column, NumberColumn):
        return _scaled(numbers(table, name), column)[:, None]
    return _one_hot(table, name, column)


def _scaled(values: np.ndarray, column: NumberColumn) -> np.ndarray:
    centre = (column.low + column.high) / 2
    half = (column.high - column.low) / 2
    scaled = (np.clip(values, column.low, column.high) - centre) / half
    # The last clip takes back what rounding of centre and half may add.
    return np.clip(np.where(np.isnan(scaled), 0.0, scaled), -1, 1).astype(np.float32)


def _one_hot(table: "pa.Table", name: str, column: CategoryColumn) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = pc.cast(table.column(name), pa.string())
    if _is_untyped(table.schema.field(name)):
        cells = _trimmed(cells)
    places = pc.index_in(cells, value_set=pa.array(column.values, pa.string()))
    codes: np.ndarray = pc.fill_null(places, -1).to_numpy()
    hot: np.ndarray = codes[:, None] == np.arange(len(column.values))
    return hot.astype(np.float32)


def numbers(table: "pa.Table", name: str) -> np.ndarray:
    """The column as float64, NaN where there is no number; no cell raises."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column(name)
    if _is_untyped(table.schema.field(name)):
        cells = _trimmed(column)
        readable = pc.match_substring_regex(cells, NUMBER)
        column = pc.if_else(readable, cells, pa.scalar(None, pa.string()))
        # Arrow reads no leading plus in every version; it carries no meaning.
        column = pc.replace_substring_regex(column, r"^\+", "")
    elif pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.int8())
    numbers = pc.cast(column, pa.float64(), safe=False)
    values: np.ndarray = pc.fill_null(numbers, float("nan")).to_numpy()
    return values


def _trimmed(column: Any) -> Any:
    import pyarrow.compute as pc

    return pc.utf8_trim_whitespace(column)


def _is_number(name: str, data: TableData) -> bool:
    if name == data.person or (name == data.target and data.classes is not None):
        return False
    return not isinstance(data.columns.get(name), CategoryColumn)


def _is_untyped(field: "pa.Field") -> bool:
    return bool(field.metadata) and UNTYPED.items() <= field.metadata.items()


def check_present(
    theirs: Mapping[str, str], present: Iterable[str], *, where: str
) -> None:
    """Check that each column, by the name it has there, is present.

    Args:
        theirs: Contract's name to the source's.
        present: The source's column names.
        where: What the source is called in the error.

    Raises:
        DataError: GLD-D003, with the nearest name.
    """
    names = list(present)
    for name, their in theirs.items():
        if their in names:
            continue
        near = difflib.get_close_matches(their, names, n=1, cutoff=0.6)
        mapped = "" if name == their else f" (mapped to {their!r})"
        raise DataError(
            "GLD-D003",
            f"column {name!r}{mapped} is missing in {where}",
            why=f"the nearest of its {len(names)} columns is {near[0]!r}"
            if near
            else f"none of its {len(names)} columns has a similar name",
            fix="map it in site.toml: "
            f'map = {{ {name} = "{near[0] if near else "YOUR COLUMN"}" }}',
        )


def check_types(fields: Mapping[str, "pa.Field"], data: TableData) -> None:
    """Check that each column's type can hold what the contract allows.

    Args:
        fields: Contract's name to the column's field.
        data: The contract; a name it does not list is the person, or else the target,
            a class or a number.

    Raises:
        DataError: GLD-D004, with the type and no cell.
    """
    for name, field in fields.items():
        if _is_untyped(field):
            continue
        if name == data.person:
            if not persons.may_name_persons(field.type):
                raise _wrong_type(name, str(field.type), "who a row is of")
            continue
        if _is_number(name, data) and not _may_be_number(field.type):
            raise _wrong_type(name, str(field.type), "numbers")
        if not _is_number(name, data) and not _may_be_category(field.type):
            raise _wrong_type(name, str(field.type), "categories")


def _may_be_number(kind: Any) -> bool:
    from pyarrow import types

    return any(
        fits(kind)
        for fits in (
            types.is_integer,
            types.is_floating,
            types.is_decimal,
            types.is_boolean,
            types.is_null,
        )
    )


def _may_be_category(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        fits(kind)
        for fits in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_integer,
            types.is_boolean,
            types.is_null,
        )
    )


def _wrong_type(name: str, found: str, wanted: str) -> DataError:
    return DataError(
        "GLD-D004",
        f"column {name!r} holds {found} where the contract says {wanted}",
        fix="map another column to it, or convert it in the export",
    )
