"""Safetensors without copies: float32 arrays to bytes and back, for large models.

The format's own library copies a model twice on the way out and once on the way in.
What is written here is its bytes to the letter; what is read is checked as strictly:
every byte belongs to exactly one tensor. This module knows no study.

Source: the safetensors format, version 0.x: 8 bytes length, JSON, then the numbers.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from guilder_shared import strange_json

Buffer = bytes | bytearray | memoryview
Arrays = dict[str, npt.NDArray[np.float32]]

LONGEST_HEADER: Final = 10_000_000  # bytes; a tensor needs about a hundred
_LENGTH_BYTES: Final = 8
_ALIGNMENT: Final = 8


def parts(weights: Mapping[str, npt.NDArray[np.float32]]) -> list[Buffer]:
    """The bytes of a safetensors file in pieces; the large ones are views.

    Names in order, as the library writes arrays of one type.
    """
    header: dict[str, Any] = {}
    pieces: list[Buffer] = []
    start = 0
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name], dtype="<f4")
        end = start + array.nbytes
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
        pieces.append(array.reshape(-1).view(np.uint8).data)
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return [len(text).to_bytes(_LENGTH_BYTES, "little"), text, *pieces]


def views(data: Buffer) -> Arrays:
    """The arrays in a safetensors file, as read-only views of `data`.

    Raises:
        ValueError: It is not one of float32 arrays, or not every byte of it belongs to
            exactly one of them.
    """
    whole = memoryview(data).cast("B").toreadonly()
    length = int.from_bytes(whole[:_LENGTH_BYTES], "little")
    begin = _LENGTH_BYTES + length
    if not 2 <= length <= LONGEST_HEADER or begin > len(whole):
        raise ValueError("no safetensors header")
    text = bytes(whole[_LENGTH_BYTES:begin])
    header = strange_json.read(text, object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError("no table of tensors")
    found: Arrays = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        shape, (start, end) = _entry(entry)
        spans.append((start, end))
        numbers = np.frombuffer(whole[begin + start : begin + end], dtype="<f4")
        found[name] = numbers.reshape(shape)
    _demand_cover(spans, len(whole) - begin)
    return found


def _entry(entry: Any) -> tuple[tuple[int, ...], tuple[int, int]]:
    shape, offsets = entry["shape"], entry["data_offsets"]
    if set(entry) != {"dtype", "shape", "data_offsets"} or entry["dtype"] != "F32":
        raise ValueError("a tensor that is not float32")
    if not all(type(n) is int and n >= 0 for n in (*shape, *offsets)):
        raise ValueError("a shape or place that is none")
    start, end = offsets
    size = 4
    for length in shape:
        size *= length
    if end - start != size:
        raise ValueError("a tensor whose length is not its shape's")
    return tuple(shape), (start, end)


def _demand_cover(spans: list[tuple[int, int]], num_bytes: int) -> None:
    place = 0
    for start, end in sorted(spans):
        if start != place:
            raise ValueError("bytes of two tensors, or of none")
        place = end
    if place != num_bytes:
        raise ValueError("bytes of no tensor")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name twice")
    return table
