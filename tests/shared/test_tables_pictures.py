"""Images: from files to examples by a public rule, one row at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from guilder_shared import tables
from guilder_shared.errors import DataError
from guilder_shared.study import ImageData
from guilder_shared.tables import arrays

SHAPE = (5, 4, 6, 3)  # rows, height, width, channels


def contract(**change: Any) -> ImageData:
    keys = {
        "kind": "images",
        "dataset": "d",
        "image": "x",
        "target": "y",
        "height": 4,
        "width": 6,
        "channels": 3,
        "classes": ["0", "1"],
    }
    return ImageData.model_validate(keys | change)


def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, SHAPE).astype(np.uint8)


def saved(path: Path, **columns: np.ndarray) -> Path:
    np.savez_compressed(path, **columns)  # type: ignore[arg-type]
    return path


def read(path: Path, data: ImageData, kind: tables.FileKind = "npz") -> pa.Table:
    tables.check_file(kind, path, {}, data)
    return tables.read(kind, path, {}, tables.needed(data))


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_an_image_comes_channels_first_within_one_of_zero(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    labels = np.array([0, 1, 1, 0, 1]).reshape(shape)
    path = saved(tmp_path / "rows.npz", x=pixels(), y=labels, other=np.zeros(9))

    found = tables.encode(read(path, contract()), contract())

    assert found.inputs.dtype == np.float32
    assert found.inputs.shape == (5, 3, 4, 6)
    expected = pixels().transpose(0, 3, 1, 2) / 127.5 - 1
    assert found.inputs == pytest.approx(expected, abs=1e-6)
    assert found.targets.tolist() == [0, 1, 1, 0, 1]


def test_a_mask_is_nought_or_one_for_each_pixel(tmp_path: Path) -> None:
    data = contract(classes=None, channels=1)
    grey, mask = pixels()[..., 0], pixels()[..., 1] // 100
    path = saved(tmp_path / "rows.npz", x=grey, y=mask)

    found = tables.encode(read(path, data), data)

    assert found.inputs.shape == (5, 1, 4, 6)
    assert found.targets.dtype == np.float32
    assert np.array_equal(found.targets, mask > 0)


def test_parquet_holds_the_same_images(tmp_path: Path) -> None:
    cells = [row.tobytes() for row in pixels()]
    table = pa.table({"x": cells, "y": ["0", " 1 ", "1", "0", "1"]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    npz = saved(tmp_path / "rows.npz", x=pixels(), y=np.array([0, 1, 1, 0, 1]))

    data = contract()
    found = tables.encode(read(tmp_path / "rows.parquet", data, "parquet"), data)
    wanted = tables.encode(read(npz, data), data)

    assert found.inputs.tobytes() == wanted.inputs.tobytes()
    assert found.targets.tobytes() == wanted.targets.tobytes()


def test_rows_that_do_not_fit_are_left_out_one_by_one() -> None:
    good = pixels()[0].tobytes()
    table = pa.table(
        {
            "x": [good, good[:-1], None, good + b"0", good, good],
            "y": ["1", "1", "1", "1", "cat", None],
        }
    )

    found = tables.encode(table, contract())
    alone = [tables.encode(table.slice(n, 1), contract()) for n in range(6)]

    assert [len(each) for each in alone] == [1, 0, 0, 0, 0, 0]
    assert found.inputs.tobytes() == alone[0].inputs.tobytes()
    with pytest.raises(DataError) as raised:
        tables.check_cells(table, contract())
    assert raised.value.error_id == "GLD-D026"
    assert "cat" not in str(raised.value)


def test_a_person_comes_with_each_image() -> None:
    good = pixels()[0].tobytes()
    table = pa.table({"x": [good] * 4, "y": list("0101"), "who": ["a", None, "b", "a"]})

    found = tables.encode(table, contract(person="who"))

    assert found.units is not None
    assert len(found.units) == 3
    assert found.units[0] == found.units[2] != found.units[1]


@pytest.mark.parametrize(
    ("columns", "error_id"),
    [
        ({"x": pixels(), "y": np.zeros((5, 2), int)}, "GLD-D027"),
        ({"x": pixels().astype(np.float32), "y": np.zeros(5, int)}, "GLD-D027"),
        ({"x": pixels()[:, :3], "y": np.zeros(5, int)}, "GLD-D004"),
        ({"x": pixels(), "y": np.zeros(5)}, "GLD-D004"),
        ({"x": pixels(), "y": np.zeros(4, int)}, "GLD-D028"),
        ({"x": pixels(), "z": np.zeros(5, int)}, "GLD-D003"),
        ({"x": np.array([[{}]] * 5), "y": np.zeros(5, int)}, "GLD-D027"),
    ],
)
def test_files_of_another_shape_are_refused_without_a_cell(
    tmp_path: Path, columns: dict[str, np.ndarray], error_id: str
) -> None:
    path = saved(tmp_path / "rows.npz", **columns)

    with pytest.raises(DataError) as raised:
        read(path, contract())

    assert raised.value.error_id == error_id


def test_a_small_file_of_huge_arrays_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "rows.npz", x=pixels(), y=np.zeros(5, int))
    monkeypatch.setattr(arrays, "LARGEST_BYTES", 300)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: 1 / 0)

    with pytest.raises(DataError) as raised:
        read(path, contract())

    assert raised.value.error_id == "GLD-D025"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"x,y\n1,2\n"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.npz"
    path.write_bytes(content)

    with pytest.raises(DataError) as raised:
        tables.column_names("npz", path)

    assert raised.value.error_id == "GLD-D002"


def test_a_broken_array_raises_no_python_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "rows.npz", x=pixels(), y=np.zeros(5, int))
    data = bytearray(path.read_bytes())
    data[200:260] = b"\xff" * 60
    path.write_bytes(data)

    with pytest.raises(DataError) as raised:
        read(path, contract())

    assert raised.value.error_id == "GLD-D002"


def test_no_rows_are_no_examples() -> None:
    empty = pa.table({"x": pa.array([], pa.binary()), "y": pa.array([], pa.string())})

    found = tables.encode(empty, contract())

    assert found.inputs.shape == (0, 3, 4, 6)
    assert len(found) == 0
