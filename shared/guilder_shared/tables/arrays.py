"""Reading arrays: an NPZ file in, a table with a column for each array out.

An array of one number a row becomes a typed column; an array of 8-bit images or masks
becomes a column of bytes, one cell an image. Nothing in the file is executed: pickled
objects are refused. This module knows no contract.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guilder_shared.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST_BYTES = 8 << 30  # of all wanted arrays, unpacked
_SUFFIX = ".npy"


@dataclass(frozen=True)
class _Header:
    """What an array says of itself before its numbers."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_image(self) -> bool:
        """Whether a row is more than one number."""
        return math.prod(self.shape[1:]) > 1


def names(path: Path) -> tuple[str, ...]:
    """The arrays of a file, without reading a row.

    Raises:
        DataError: GLD-D001 it cannot be opened, GLD-D002 it is no NPZ.
    """
    with _opened(path) as file:
        return tuple(
            name.removesuffix(_SUFFIX)
            for name in file.namelist()
            if name.endswith(_SUFFIX)
        )


def schema(path: Path, wanted: list[str]) -> "pa.Schema":
    """The columns' types, from the arrays' headers alone.

    Raises:
        DataError: As `names`; GLD-D027 an array of another type than Guilder reads.
    """
    import pyarrow as pa

    with _opened(path) as file:
        headers = {name: _header(file, path, name) for name in wanted}
    return pa.schema([(name, _type(name, each)) for name, each in headers.items()])


def read(path: Path, wanted: list[str]) -> "pa.Table":
    """The wanted arrays as columns, rows in file order.

    Raises:
        DataError: As `schema`; GLD-D025 the arrays are too large, GLD-D028 they have
            different numbers of rows.
    """
    import pyarrow as pa

    with _opened(path) as file:
        headers = {name: _header(file, path, name) for name in wanted}
        _check_size(path, headers)
        columns = {name: _column(file, path, name, headers[name]) for name in wanted}
    return pa.table(columns)


def _check_size(path: Path, headers: dict[str, _Header]) -> None:
    numbers = sum(header.num_bytes for header in headers.values())
    if numbers > LARGEST_BYTES:
        raise DataError(
            "GLD-D025",
            f"{path} is too large to be read at once",
            why=f"at most {LARGEST_BYTES >> 30} GiB of arrays fit",
            fix="export it in parts, or as Parquet",
        )
    if len({header.shape[:1] for header in headers.values()}) > 1:
        raise DataError(
            "GLD-D028",
            f"the arrays of {path} have different numbers of rows",
            fix="export them together, one entry a row in each",
        )


def _column(file: zipfile.ZipFile, path: Path, name: str, header: _Header) -> Any:
    import pyarrow as pa

    kind = _type(name, header)
    with _numbers(file, path, name) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
    if not header.is_image:
        return pa.array(array.reshape(-1), kind)
    data = np.ascontiguousarray(array).view(np.uint8)
    rows = header.shape[0]
    return pa.FixedSizeBinaryArray.from_buffers(kind, rows, [None, pa.py_buffer(data)])


def _type(name: str, header: _Header) -> Any:
    import pyarrow as pa

    if header.shape and header.is_image and header.dtype in (np.uint8, np.bool_):
        return pa.binary(math.prod(header.shape[1:]))
    if header.shape and not header.is_image and header.dtype.kind in "biuf":
        return pa.from_numpy_dtype(header.dtype)
    if header.shape and not header.is_image and header.dtype.kind == "U":
        return pa.string()
    raise DataError(
        "GLD-D027",
        f"array {name!r} has type {header.dtype} and {len(header.shape)} dimensions",
        why="images and masks are 8-bit, rows first; other columns one number a row",
        fix="convert it in the export, e.g. images.astype('uint8')",
    )


def _header(file: zipfile.ZipFile, path: Path, name: str) -> _Header:
    with _numbers(file, path, name) as member:
        version = np.lib.format.read_magic(member)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(member)
    return _Header(shape, dtype)


@contextmanager
def _numbers(file: zipfile.ZipFile, path: Path, name: str) -> Iterator[Any]:
    """One array's bytes; whatever is wrong with them, no message quotes a cell."""
    try:
        with file.open(name + _SUFFIX) as member:
            yield member
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile):
        raise _no_npz(path) from None


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        file = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise _no_npz(path) from None
    except OSError as error:
        raise DataError(
            "GLD-D001",
            f"{path} cannot be opened: {error.strerror}",
            fix="correct `path` in site.toml, or the rights of the file",
        ) from error
    with file:
        yield file


def _no_npz(path: Path) -> DataError:
    return DataError(
        "GLD-D002",
        f"{path} is not an npz file that Guilder can read",
        why="it is no archive of arrays, or holds something else than numbers",
        fix="set `kind` to how the file is written, or export it again",
    )
