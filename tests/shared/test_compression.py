"""Updates as 8-bit integers: close, small, the same bytes; and what a site forges."""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save

from guilder_shared.compression import BLOCK, pack_update, unpack_update
from guilder_shared.errors import IntegrityError
from guilder_shared.messages import MEASURED_BESIDE, Weights, pack

SHAPES = {"w": (300, 3), "b": (7,), "a": (1,)}


def noised(seed: int = 1, shapes: dict[str, tuple[int, ...]] = SHAPES) -> Weights:
    random = np.random.default_rng(seed)
    return {n: np.asarray(random.normal(size=s), np.float32) for n, s in shapes.items()}


def and_back(update: Weights) -> Weights:
    shapes = {n: w.shape for n, w in update.items()}
    return unpack_update(pack_update(update, "int8"), shapes, "int8")


@given(
    values=arrays.arrays(
        np.float32,
        st.integers(1, 700),
        elements=st.floats(-1024, 1024, width=32),
    )
)
def test_no_coordinate_moves_by_more_than_half_a_step(values: np.ndarray) -> None:
    found = and_back({"w": values})["w"]

    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        most = np.abs(block).max() / 254 * (1 + 1e-5) + 1e-44
        assert np.abs(found[start : start + BLOCK] - block).max() <= most


def test_names_and_shapes_come_back_and_the_same_update_gives_the_same_bytes() -> None:
    update = noised()

    found = and_back(update)

    assert {n: w.shape for n, w in found.items()} == SHAPES
    assert all(w.dtype == np.float32 for w in found.values())
    turned = dict(reversed(update.items()))
    assert pack_update(turned, "int8") == pack_update(update, "int8")
    assert pack_update(found, "int8") == pack_update(update, "int8")


@pytest.mark.parametrize("compression", ["int8", None])
def test_what_was_measured_lies_beside_the_update_as_it_is(compression: Any) -> None:
    update, measured = noised(), noised(2)["w"].reshape(-1)

    data = pack_update(update, compression, measured)
    found = unpack_update(data, SHAPES, compression, len(measured))

    assert np.array_equal(found.pop(MEASURED_BESIDE), measured)
    alone = unpack_update(pack_update(update, compression), SHAPES, compression)
    assert pack(found) == pack(alone)


@pytest.mark.parametrize("compression", ["int8", None])
def test_a_vector_that_was_not_asked_for_or_is_no_vector_is_refused(
    compression: Any,
) -> None:
    update, three = noised(), np.ones(3, np.float32)
    beside = pack_update(update, compression, three)
    for data, num in (
        (beside, 0),
        (beside, 4),
        (pack_update(update, compression), 3),
        (pack_update(update, compression, three * np.nan), 3),
    ):
        with pytest.raises(IntegrityError, match=r"tensors|integers|finite|bytes"):
            unpack_update(data, SHAPES, compression, num)


def test_noise_is_kept_to_one_per_cent_at_a_quarter_of_the_bytes() -> None:
    update = noised(shapes={"w": (400, 500)})

    off = and_back(update)["w"] - update["w"]

    assert off.std() < 0.01
    assert abs(off.mean()) < 1e-4
    assert len(pack_update(update, "int8")) < 0.256 * len(pack(update))


def test_without_compression_bytes_are_as_ever() -> None:
    update = noised()

    assert pack_update(update, None) == pack(update)
    assert pack(unpack_update(pack(update), SHAPES, None)) == pack(update)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_raises_at_the_reader_alone(value: float) -> None:
    update = noised()
    update["w"][0, 0] = value

    data = pack_update(update, "int8")

    with pytest.raises(IntegrityError) as caught:
        unpack_update(data, SHAPES, "int8")
    assert caught.value.error_id == "GLD-I042"


NUMBERS, SCALES = np.zeros(908, np.int8), np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("forged", "error_id"),
    [
        (pack(noised()), "GLD-I040"),
        (b"", "GLD-I040"),
        (b"\xff" * 500, "GLD-I040"),
        (save({"numbers": NUMBERS}), "GLD-I041"),
        (save({"numbers": NUMBERS, "scales": SCALES, "more": SCALES}), "GLD-I041"),
        (save({"numbers": NUMBERS[:-1], "scales": SCALES}), "GLD-I041"),
        (save({"numbers": NUMBERS.view(np.uint8), "scales": SCALES}), "GLD-I041"),
        (save({"numbers": NUMBERS, "scales": SCALES.astype("f2")}), "GLD-I041"),
        (save({"numbers": NUMBERS, "scales": SCALES - 1}), "GLD-I042"),
        (save({"numbers": NUMBERS, "scales": SCALES + np.inf}), "GLD-I042"),
    ],
)
def test_forged_bytes_are_refused_before_anything_is_made_of_them(
    forged: bytes, error_id: str
) -> None:
    with pytest.raises(IntegrityError) as caught:
        unpack_update(forged, SHAPES, "int8")

    assert caught.value.error_id == error_id


@given(cut=st.integers(0, 1500), byte=st.integers(0, 255), place=st.integers(0, 999))
def test_a_mutated_update_is_read_or_refused(cut: int, byte: int, place: int) -> None:
    data = bytearray(pack_update(noised(), "int8"))
    data[place % len(data)] = byte

    found = noised()
    with contextlib.suppress(IntegrityError):  # any other error fails the test
        found = unpack_update(bytes(data[:cut]), SHAPES, "int8")

    assert {n: w.shape for n, w in found.items()} == SHAPES
