"""Safetensors without copies: the library's bytes to the letter, and nothing forged."""

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from guilder_shared import tensors

NAMES = st.text('abcxyz.0123456789_é"', min_size=1, max_size=12)
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def arrays(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {n: np.asarray(random.normal(size=s), np.float32) for n, s in shapes.items()}


@given(st.dictionaries(NAMES, SHAPES, min_size=1, max_size=6))
def test_the_bytes_are_the_librarys_and_come_back(shapes: dict[str, Any]) -> None:
    shapes = {name: shape or (1,) for name, shape in shapes.items()}
    model = arrays(shapes)

    data = b"".join(tensors.parts(model))

    assert data == save(model)
    found = tensors.views(data)
    assert {n: w.shape for n, w in found.items()} == shapes
    assert all(np.array_equal(w, model[n]) for n, w in found.items())


def test_what_is_read_is_a_view_that_cannot_be_written() -> None:
    data = bytearray(b"".join(tensors.parts(arrays({"w": (3, 2)}))))

    found = tensors.views(data)["w"]

    assert np.shares_memory(found, np.frombuffer(data, np.uint8))
    assert not found.flags.writeable


def forged(header: Any, num_bytes: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(num_bytes)


def entry(start: int, end: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 100,
        forged(b"[" * 100_000, 0),
        forged([1], 0),
        forged({"w": 3}, 4),
        forged({"w": entry(0, 8, [2])}, 4),  # longer than the file
        forged({"w": entry(0, 4, [2])}, 4),  # shorter than its shape
        forged({"w": entry(0, 4, [1])}, 8),  # bytes of no tensor
        forged({"w": entry(4, 8, [1])}, 8),  # a hole before it
        forged({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, 4),  # shared bytes
        forged({"a": entry(0, 8, [2]), "b": entry(4, 8, [1])}, 8),  # overlapping
        forged({"w": entry(0, 4, [-1, -1])}, 4),
        forged({"w": entry(0, 4, [True])}, 4),
        forged({"w": entry(0, 4, [1.0])}, 4),
        forged({"w": entry(0, 4, [2**70, 0])}, 4),
        forged({"w": entry(0, 4, [1], "I32")}, 4),
        forged({"w": {**entry(0, 4, [1]), "more": 1}}, 4),
        forged(b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":1}', 4),
    ],
)
def test_a_forged_file_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, RecursionError)):
        tensors.views(data)


@given(st.integers(0, 200), st.integers(0, 255), st.integers(0, 300))
def test_a_mutated_file_is_refused_or_read_as_the_library_reads_it(
    place: int, byte: int, cut: int
) -> None:
    data = bytearray(b"".join(tensors.parts(arrays({"w": (3, 2), "b": (3,)}))))
    data[place % len(data)] = byte
    mutated = bytes(data[: len(data) - cut if cut < 50 else None])

    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        found = tensors.views(mutated)
        expected = load(mutated)
        assert {n: w.tobytes() for n, w in found.items()} == {
            n: w.tobytes() for n, w in expected.items()
        }
