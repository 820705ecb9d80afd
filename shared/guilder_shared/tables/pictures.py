"""Images: what a column of them must look like, and how it becomes numbers.

An image is a cell of bytes, row by row and channel last, 8 bits a number. Every encoded
image is a function of its own cell and of public constants. This module opens no file.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from guilder_shared.errors import DataError
from guilder_shared.study import ImageData
from guilder_shared.tables import answers, persons
from guilder_shared.tasks import Examples

if TYPE_CHECKING:
    import pyarrow as pa


def needed(data: ImageData) -> tuple[str, ...]:
    """The contract's columns: the image, the target, and the person if one is named."""
    person = () if data.person is None else (data.person,)
    return (data.image, data.target, *person)


def check_types(fields: Mapping[str, "pa.Field"], data: ImageData) -> None:
    """Check that each column's type can hold what the contract allows.

    Raises:
        DataError: GLD-D004, with the type and no cell.
    """
    pixels = data.height * data.width
    for name, field in fields.items():
        if name == data.image:
            fits = _may_be_bytes(field.type, pixels * data.channels)
        elif name == data.person:
            fits = persons.may_name_persons(field.type)
        elif data.classes is None:
            fits = _may_be_bytes(field.type, pixels)
        else:
            fits = answers.may_be_class(field.type)
        if not fits:
            raise DataError(
                "GLD-D004",
                f"column {name!r} holds {field.type}, which is not what the study's "
                f"images of {data.height} x {data.width} x {data.channels} need",
                fix="map another column to it, or convert it in the export",
            )


def check_cells(table: "pa.Table", data: ImageData) -> None:
    """Check that most rows fit; for public rows and for the engineer's own eyes.

    Raises:
        DataError: GLD-D026.
    """
    answers.check_share(data.target, _kept(table, data))


def encode(table: "pa.Table", data: ImageData) -> Examples:
    """Turn rows into images and targets by the contract's public rule.

    A row is left out whose image or mask has another size than the study says, or
    whose class is none of the study's. Row i depends on row i alone; no cell raises.

    Returns:
        Inputs (rows, channels, height, width), float32, in [-1, 1]; targets the number
        of the class, (rows,), or the mask, (rows, height, width), 0 or 1, float32.
    """
    kept, units = answers.with_person(table, data.person, _kept(table, data))
    rows = table.filter(_mask(kept))
    shape = (data.height, data.width)
    images = _bytes(rows.column(data.image)).reshape(-1, *shape, data.channels)
    inputs = images.transpose(0, 3, 1, 2).astype(np.float32)
    inputs = np.ascontiguousarray(inputs / np.float32(127.5) - np.float32(1))
    if data.classes is None:
        mask = _bytes(rows.column(data.target)).reshape(-1, *shape) > 0
        return Examples(inputs, mask.astype(np.float32), units)
    found = answers.classes(rows.column(data.target), data.classes)
    return Examples(inputs, found.astype(np.float32), units)


def _kept(table: "pa.Table", data: ImageData) -> NDArray[np.bool_]:
    pixels = data.height * data.width
    kept = _has_size(table.column(data.image), pixels * data.channels)
    if data.classes is None:
        return kept & _has_size(table.column(data.target), pixels)
    return kept & (answers.classes(table.column(data.target), data.classes) >= 0)


def _has_size(column: Any, num_bytes: int) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    fits = pc.equal(pc.binary_length(column), num_bytes)
    found: NDArray[np.bool_] = pc.fill_null(fits, False).to_numpy()
    return found


def _bytes(column: Any) -> NDArray[np.uint8]:
    joined = b"".join(column.to_pylist())
    return np.frombuffer(joined, np.uint8)


def _mask(kept: NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.array(kept)


def _may_be_bytes(kind: Any, num_bytes: int) -> bool:
    from pyarrow import types

    if types.is_fixed_size_binary(kind):
        return bool(kind.byte_width == num_bytes)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))
