"""Whose row it is: by the row's own cell, alike in both kinds of file."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from guilder_shared import tables
from guilder_shared.errors import DataError
from guilder_shared.study import TableData
from guilder_shared.tasks import Examples

DATA = TableData.model_validate(
    {
        "kind": "table",
        "dataset": "d",
        "target": "y",
        "person": "who",
        "columns": {"x": {"kind": "number", "low": 0, "high": 10}},
    }
)


def encoded(who: pa.Array, y: list[float] | None = None) -> Examples:
    x = pa.array([float(i) for i in range(len(who))])
    target = pa.array(y or [0.0] * len(who))
    return tables.encode(pa.table({"x": x, "who": who, "y": target}), DATA)


def units(who: pa.Array) -> Any:
    found = encoded(who).units
    assert found is not None
    return found.tolist()


def test_rows_of_one_person_are_one_unit_wherever_they_stand() -> None:
    a, b, again, c = units(pa.array(["ann", "bob", "ann", "Ann"]))

    assert a == again
    assert len({a, b, c}) == 3


@pytest.mark.parametrize(
    "who",
    [
        pa.array([17, None, 18, 17], pa.int64()),
        pa.array([17.0, float("nan"), 18.0, 17.0]),  # as pandas writes missing ones
        pa.array(["17", "", "18", " 17 "]),
        pa.array(["17", None, "18", "17"], pa.large_string()),
        pa.array(["17", "nan", "18", "17"]).dictionary_encode(),
        pa.array([b"17", b"  ", b"18", b"17"]).cast(pa.string()),
    ],
)
def test_a_row_without_a_person_is_left_out_and_types_do_not_matter(
    who: pa.Array,
) -> None:
    examples = encoded(who)

    assert examples.units is not None
    assert examples.units.tolist() == units(pa.array(["17", "18", "17"]))
    assert examples.inputs[:, 0].tolist() == pytest.approx([-1, -0.6, -0.4])


def test_a_persons_number_follows_from_its_own_cell_alone() -> None:
    names = [f"person {i}" for i in range(500)]

    forwards, backwards = units(pa.array(names)), units(pa.array(names[::-1]))

    assert forwards == backwards[::-1]
    assert len(set(forwards)) == 500
    assert units(pa.array(["person 7"])) == [forwards[7]]
    assert forwards[0] == -1317013649222631241  # in every version: seeds must repeat


def test_units_stay_beside_their_rows_where_others_are_left_out() -> None:
    examples = encoded(pa.array(["a", "b", None, "a", "c"]), [0, 5, 0, 1, 1])

    assert examples.units is not None
    assert examples.units.tolist() == units(pa.array(["a", "a", "c"]))
    assert examples.targets.tolist() == [0, 1, 1]


def test_text_that_is_no_utf8_names_a_person_and_raises_nothing() -> None:
    offsets = pa.py_buffer(np.array([0, 2, 4, 6], np.int32).tobytes())
    raw = pa.py_buffer(b"\xff\xfeab\xff\xfe")
    who = pa.StringArray.from_buffers(3, offsets, raw)

    first, other, again = units(who)

    assert first == again != other


def test_no_rows_have_no_units() -> None:
    examples = tables.encode(
        pa.table({"x": pa.array([], pa.float64()), "who": [], "y": []}), DATA
    )

    assert examples.units is not None
    assert examples.units.shape == (0,)


def test_csv_and_parquet_name_the_same_persons(tmp_path: Path) -> None:
    csv = tmp_path / "d.csv"
    csv.write_text('x,y,who\n1,0,17\n2,0,\n3,1,"18"\n4,1, 17\n')
    columns: dict[str, Any] = {"x": [1.0, 2.0, 3.0, 4.0], "y": [0, 0, 1, 1]}
    who = pa.array([17, None, 18, 17])
    parquet.write_table(pa.table({**columns, "who": who}), tmp_path / "d.parquet")
    wanted = tables.needed(DATA)

    one = tables.encode(tables.read("csv", csv, {}, wanted), DATA)
    other = tables.encode(
        tables.read("parquet", tmp_path / "d.parquet", {}, wanted), DATA
    )

    assert one.units is not None
    assert other.units is not None
    assert one.units.tolist() == other.units.tolist()
    assert np.array_equal(one.inputs, other.inputs)


def test_a_contract_without_persons_neither_reads_nor_keeps_them() -> None:
    data = DATA.model_copy(update={"person": None})
    table = pa.table({"x": [1.0], "y": [1]})

    assert tables.needed(data) == ("x", "y")
    assert tables.encode(table, data).units is None


def test_a_missing_column_of_persons_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match="who") as refused:
        tables.check(pa.table({"x": [1.0], "y": [1]}), DATA)

    assert refused.value.error_id == "GLD-D003"


@pytest.mark.parametrize("cell", [True, b"raw", [1], {"a": 1}])
def test_a_type_that_names_nobody_is_refused_without_its_cells(cell: Any) -> None:
    table = pa.table({"x": [1.0], "y": [1], "who": pa.array([cell])})

    with pytest.raises(DataError) as refused:
        tables.check(table, DATA)

    assert refused.value.error_id == "GLD-D004"
    assert "raw" not in str(refused.value)
