"""Rows of named persons, found by their own cell and left out.

An id in a list is text; a column may hold text or numbers. Where they could be the same
person they are: leaving out a person too many is safe, one too few is not. This module
opens no file, counts nothing and raises for no cell.

Review, mathematics: each row stays or goes by its own person cell and the list alone.
Review, crash order: in memory only.
"""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def without_persons(table: "pa.Table", person: str, ids: Iterable[str]) -> "pa.Table":
    """The rows of everybody who is not named.

    Args:
        table: All rows.
        person: The column that says whose row a row is.
        ids: As text. Blanks around ids and cells do not count; in a column of
            numbers "007", "7" and "7.0" are one person.

    Returns:
        Rows in their order; those whose cell is missing or blank stay.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column(person)
    kind = column.type.value_type if _is_dictionary(column.type) else column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        wanted = pa.array(sorted(set(_numbers(ids, kind))), kind)
        named = pc.is_in(pc.cast(column, kind), value_set=wanted)
        return table.filter(pc.invert(named))
    # Bytes, because a Parquet file may hold text that is no UTF-8.
    cells = pc.cast(pc.cast(column, pa.large_string()), pa.large_binary())
    wanted = {each.strip().encode() for each in ids} - {b""}
    found = pc.dictionary_encode(cells).combine_chunks()
    if isinstance(found, pa.ChunkedArray):  # no chunk at all
        return table
    theirs = [cell.strip() in wanted for cell in found.dictionary.to_pylist()]
    named = pc.take(pa.array(theirs, pa.bool_()), found.indices)
    return table.filter(pc.invert(pc.fill_null(named, False)))


def _is_dictionary(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_dictionary(kind))


def _numbers(ids: Iterable[str], kind: Any) -> Iterator[Any]:
    """Those ids that a column of this type can hold, as its numbers."""
    import pyarrow as pa

    whole = pa.types.is_integer(kind)
    for each in ids:
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,30}(\.[0-9]{0,30})?\s*", each):
            continue
        head, _, tail = each.strip().partition(".")
        if whole and tail.strip("0"):
            continue
        value = int(head) if whole else float(each)
        try:
            yield pa.scalar(value, kind).as_py()
        except (pa.ArrowInvalid, OverflowError):
            continue
