"""Texts: what a column of them must look like, and how it becomes tokens.

Every encoded text is a function of its own cell and of public rules. Errors name
columns and types, never a cell. This module opens no file of a site.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from guilder_shared.errors import DataError
from guilder_shared.models import tokens
from guilder_shared.study import TextData
from guilder_shared.tables import answers, persons
from guilder_shared.tasks import Examples

if TYPE_CHECKING:
    import pyarrow as pa


def needed(data: TextData) -> tuple[str, ...]:
    """The contract's columns: the text, the target, and the person if one is named."""
    person = () if data.person is None else (data.person,)
    return (data.text, data.target, *person)


def check_types(fields: Mapping[str, "pa.Field"], data: TextData) -> None:
    """Check that each column's type can hold what the contract allows.

    Raises:
        DataError: GLD-D004, with the type and no cell.
    """
    for name, field in fields.items():
        if name == data.text:
            fits = _may_be_text(field.type)
        elif name == data.person:
            fits = persons.may_name_persons(field.type)
        else:
            fits = answers.may_be_class(field.type)
        if not fits:
            raise DataError(
                "GLD-D004",
                f"column {name!r} holds {field.type}, which is neither text nor class",
                fix="map another column to it, or convert it in the export",
            )


def check_cells(table: "pa.Table", data: TextData) -> None:
    """Check that most rows fit; for public rows and for the engineer's own eyes.

    Raises:
        DataError: GLD-D026.
    """
    answers.check_share(data.target, _classes(table, data) >= 0)


def encode(table: "pa.Table", data: TextData) -> Examples:
    """Turn rows into tokens and targets by the contract's public rule.

    A row whose class is none of the study's is left out; a missing text is the empty
    text, and bytes that are no UTF-8 become the mark of their absence. Row i depends
    on row i alone; no cell raises.

    Returns:
        Inputs (rows, max_tokens), int64; targets the number of the class, (rows,),
        float32.

    Raises:
        StudyError: The study's tokenizer is not installed here; see `tokens.encode`.
    """
    import pyarrow as pa

    found = _classes(table, data)
    kept, units = answers.with_person(table, data.person, found >= 0)
    rows = table.column(data.text).filter(pa.array(kept))
    texts = (_text(cell) for cell in _cells(rows))
    inputs = tokens.encode(texts, data)
    return Examples(inputs, found[kept].astype(np.float32), units)


def _classes(table: "pa.Table", data: TextData) -> NDArray[np.int64]:
    return answers.classes(table.column(data.target), data.classes)


def _cells(column: Any) -> list[bytes | None]:
    """As bytes, because a Parquet file may hold text that is no UTF-8."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = pc.cast(pc.cast(column, pa.large_string()), pa.large_binary())
    found: list[bytes | None] = cells.to_pylist()
    return found


def _text(cell: bytes | None) -> str:
    return "" if cell is None else cell.decode("utf-8", "replace")


def _may_be_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_null(kind)
    )
