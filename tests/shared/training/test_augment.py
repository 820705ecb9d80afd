"""Copies of a row: functions of that row and of the turn's randomness, in bounds."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from guilder_shared.study import TableData
from guilder_shared.study.learning import Augment
from guilder_shared.training.augment import Copies, MeanLosses

KEY = bytes(range(32))
Floats = NDArray[np.float32]

TABLE = TableData.model_validate(
    {
        "kind": "table",
        "dataset": "d",
        "target": "y",
        "columns": {
            "a": {"kind": "number", "low": 0, "high": 1},
            "b": {"kind": "category", "values": ["x", "y", "z"]},
            "c": {"kind": "number", "low": 0, "high": 1},
        },
    }
)
IMAGES = None  # any shape: nothing but the rows tells it


def copies(table: TableData | None = TABLE, **how: Any) -> Copies:
    return Copies(Augment(copies=2, **how), table)


def table_rows(num: int) -> Floats:
    rows = np.zeros((num, 5), np.float32)
    rng = np.random.default_rng(1)
    rows[:, [0, 4]] = rng.uniform(-1, 1, (num, 2))
    rows[np.arange(num), 1 + np.arange(num) % 3] = 1.0
    return rows


def image_rows(num: int) -> Floats:
    rng = np.random.default_rng(2)
    return rng.uniform(-1, 1, (num, 2, 6, 5)).astype(np.float32)


def places(num: int, first: int = 0) -> NDArray[np.int64]:
    return np.arange(first, first + num)


ALL = [
    (TABLE, {"jitter": 0.1, "mask": 0.3}, table_rows),
    (IMAGES, {"flip": True, "shift": 2, "jitter": 0.1}, image_rows),
]


@pytest.mark.parametrize(("data", "how", "rows"), ALL, ids=["table", "images"])
def test_a_copy_is_the_same_in_whatever_pass_it_is_made(
    data: Any, how: Any, rows: Any
) -> None:
    made = copies(data, **how)
    whole = made.make(rows(40), places(40), KEY)

    parts = [
        made.make(rows(40)[a:b], places(b - a, a), KEY) for a, b in ((0, 7), (7, 40))
    ]
    order = np.random.default_rng(3).permutation(40)
    mixed = made.make(rows(40)[order], order, KEY)

    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(mixed, whole[order])


@pytest.mark.parametrize(("data", "how", "rows"), ALL, ids=["table", "images"])
def test_a_copy_looks_at_no_other_row(data: Any, how: Any, rows: Any) -> None:
    made, these = copies(data, **how), rows(30)
    others = these.copy()
    others[:13], others[14:] = 1.0, -1.0

    here, there = (made.make(x, places(30), KEY) for x in (these, others))

    assert np.array_equal(here[13], there[13])


@pytest.mark.parametrize(("data", "how", "rows"), ALL, ids=["table", "images"])
def test_copies_stay_in_bounds_and_the_rows_as_they_were(
    data: Any, how: Any, rows: Any
) -> None:
    these = rows(200)

    found = copies(data, **how).make(these, places(200), KEY)

    assert np.array_equal(these, rows(200))
    assert found.dtype == np.float32
    assert float(np.abs(found).max()) <= 1.0
    assert not np.array_equal(found, these)


def test_another_key_or_place_is_another_copy() -> None:
    made, row = copies(jitter=0.1), table_rows(1)

    found = [
        made.make(row, places(1, place), key)
        for place, key in ((0, KEY), (1, KEY), (0, bytes(32)))
    ]

    assert len({x.tobytes() for x in found}) == 3


def test_categories_keep_their_value_under_jitter() -> None:
    found = copies(jitter=0.2).make(table_rows(60), places(60), KEY)

    assert np.array_equal(found[:, 1:4], table_rows(60)[:, 1:4])
    assert float(np.abs(found[:, 0] - table_rows(60)[:, 0]).max()) <= 0.2 + 1e-6


def test_a_masked_category_goes_as_a_whole() -> None:
    found = copies(mask=0.4).make(table_rows(900), places(900), KEY)

    left = found[:, 1:4].sum(1)
    assert set(np.unique(left)) == {0.0, 1.0}
    # 900 fair draws at 0.4: outside 0.31..0.49 in fewer than 1 of 10^7 keys
    assert 0.31 < float((left == 0).mean()) < 0.49


def test_images_are_moved_and_mirrored_whole() -> None:
    image = image_rows(1)
    many = np.repeat(image, 400, axis=0)

    found = copies(IMAGES, flip=True, shift=1).make(many, places(400), KEY)

    edge = np.pad(image[0], ((0, 0), (1, 1), (1, 1)), mode="edge")
    mirrored = np.pad(image[0][..., ::-1], ((0, 0), (1, 1), (1, 1)), mode="edge")
    wanted = {
        np.ascontiguousarray(x[:, a : a + 6, b : b + 5]).tobytes()
        for x in (edge, mirrored)
        for a in range(3)
        for b in range(3)
    }
    assert {x.tobytes() for x in found} == wanted  # all 18, each of 1/18


def test_no_rows_have_no_copies() -> None:
    assert len(copies(jitter=0.1).make(table_rows(0), places(0), KEY)) == 0


def test_losses_of_copies_are_averaged_and_equal_when_they_are_the_same() -> None:
    def losses(outputs: Any, targets: Any) -> Any:
        return outputs - targets

    mean = MeanLosses(losses, 4)

    assert np.array_equal(mean(np.ones(3), np.zeros(3)), np.full(3, 0.25))
    assert mean == MeanLosses(losses, 4)
    assert hash(mean) == hash(MeanLosses(losses, 4))
