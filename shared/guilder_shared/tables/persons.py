"""Whose row it is: the person column's cells as numbers, each by itself.

A row's number follows from its own cell. Nothing here counts persons or looks at what
else their rows hold. This module opens no file.

Review, mathematics. A row without a person belongs to no unit that could be protected,
so it is left out; that is a public rule on the row alone. Equal cells, blanks around
them aside, are one person. Two different persons get one number with a chance of 2**-64
for each other person (a hash of 64 bits); they would then be protected as one, at most
doubling what one of them adds: of delta this takes less than the noise's residue does.
Review, crash order: in memory only.
"""

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

NOBODY = (b"", b"nan")  # in lower case, without blanks; nan is how tools write nothing


def units(column: "pa.ChunkedArray") -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The person of each row as a number, and whether the row has one.

    Args:
        column: Text, whole numbers or floats of any type that `may_name_persons`.

    Returns:
        Numbers, shape (rows,), the same for the same cell in every file, process and
        version; and a mask, shape (rows,), False where the cell is missing, blank or
        NaN. No cell raises.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    # Bytes, because a Parquet file may hold text that is no UTF-8.
    cells = pc.cast(pc.cast(column, pa.large_string()), pa.large_binary())
    found = pc.dictionary_encode(cells).combine_chunks()
    if isinstance(found, pa.ChunkedArray):  # no chunk at all
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_)
    names = [cell.strip() for cell in found.dictionary.to_pylist()]
    numbers = np.array([*map(_number, names), 0], dtype=np.int64)
    named = np.array([name.lower() not in NOBODY for name in names] + [False])
    places = pc.fill_null(found.indices, len(names)).to_numpy(zero_copy_only=False)
    return numbers[places], named[places]


def may_name_persons(kind: Any) -> bool:
    """Whether a column of this Arrow type can say whose row a row is."""
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
            types.is_floating,  # whole numbers beside missing ones, as pandas has them
            types.is_null,
        )
    )


def _number(name: bytes) -> int:
    digest = hashlib.blake2b(name, digest_size=8, person=b"guilder person").digest()
    return int.from_bytes(digest, "little", signed=True)
