"""Tables: the public row rule, the contract's checks and both file kinds."""

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from guilder_shared import tables
from guilder_shared.errors import DataError
from guilder_shared.study import TableData

SECRET = "SECRET-CELL"

DATA = TableData.model_validate(
    {
        "kind": "table",
        "dataset": "card-payments",
        "target": "fraud",
        "columns": {
            "kind": {"kind": "category", "values": ["pos", "web", "atm"]},
            "amount": {"kind": "number", "low": 0, "high": 100},
        },
    }
)
NAMES = {"amount": "amt", "kind": "Kind of payment", "fraud": "is_fraud"}


def table(
    amount: list[Any], kind: list[Any] | None = None, fraud: list[Any] | None = None
) -> pa.Table:
    return pa.table(
        {
            "amount": pa.array(amount, pa.float64()),
            "kind": pa.array(kind or ["pos"] * len(amount), pa.string()),
            "fraud": pa.array(fraud or [0] * len(amount), pa.int64()),
        }
    )


def write_csv(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def read_csv(path: Path) -> pa.Table:
    return tables.read("csv", path, {}, tables.needed(DATA))


def test_numbers_are_clipped_to_public_bounds_and_scaled_to_minus_one_and_one() -> None:
    examples = tables.encode(table([-7, 0, 25, 50, 100, 1e9]), DATA)

    assert examples.inputs[:, 0].tolist() == [-1, -1, -0.5, 0, 1, 1]
    assert examples.inputs.dtype == examples.targets.dtype == np.float32


def test_missing_and_nan_become_the_centre_and_infinity_a_bound() -> None:
    examples = tables.encode(table([None, math.nan, math.inf, -math.inf]), DATA)

    assert examples.inputs[:, 0].tolist() == [0, 0, 1, -1]


def test_a_category_is_one_hot_and_an_unknown_one_all_zeros() -> None:
    examples = tables.encode(table([50] * 5, ["pos", "web", "atm", "?", None]), DATA)

    assert examples.inputs[:, 1:].tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_a_row_whose_target_is_not_zero_or_one_is_left_out() -> None:
    examples = tables.encode(table([0, 25, 50, 100], fraud=[0, 2, None, 1]), DATA)

    assert examples.targets.tolist() == [0, 1]
    assert examples.inputs[:, 0].tolist() == [-1, 1]


def test_an_empty_table_has_no_examples_and_the_right_width() -> None:
    examples = tables.encode(table([]), DATA)

    assert examples.inputs.shape == (0, 4)
    assert examples.targets.shape == (0,)


def test_the_order_of_columns_in_a_study_does_not_matter() -> None:
    written = DATA.model_dump()
    written["columns"] = dict(reversed(list(written["columns"].items())))
    turned = TableData.model_validate(written)
    rows = table([10, 20], ["web", "atm"])

    one, other = tables.encode(rows, DATA), tables.encode(rows, turned)

    assert one.inputs.tobytes() == other.inputs.tobytes()


ROWS = st.lists(
    st.tuples(
        st.none() | st.floats(width=64),
        st.none() | st.sampled_from(["pos", "web", "atm", "", "other"]),
        st.none() | st.integers(-1, 2),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows=ROWS)
def test_every_row_is_encoded_from_its_own_cells_alone(
    rows: list[tuple[float | None, str | None, int | None]],
) -> None:
    amounts, kinds, frauds = (list(cells) for cells in zip(*rows, strict=True))

    together = tables.encode(table(amounts, kinds, frauds), DATA)
    alone = [tables.encode(table([a], [k], [f]), DATA) for a, k, f in rows]

    assert np.concatenate([one.inputs for one in alone]).tolist() == (
        together.inputs.tolist()
    )
    assert np.concatenate([one.targets for one in alone]).tolist() == (
        together.targets.tolist()
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_both_file_kinds_encode_to_the_same_bytes(
    kind: tables.FileKind, tmp_path: Path
) -> None:
    rows = table([1.5, None, 99.25], ["pos", "web", None], [0, 1, 0])
    renamed = rows.rename_columns([NAMES[name] for name in rows.column_names])
    path = tmp_path / f"rows.{kind}"
    if kind == "csv":
        write_csv(
            path,
            "amt;Kind of payment;is_fraud\n1.5;pos;0\n;web;1\n99.25;;0\n",
        )
    else:
        parquet.write_table(renamed, path)

    read = tables.read(kind, path, NAMES, tables.needed(DATA))

    assert read.column_names == ["amount", "kind", "fraud"]
    assert tables.encode(read, DATA).inputs.tobytes() == (
        tables.encode(rows, DATA).inputs.tobytes()
    )


def test_a_csv_cell_that_is_no_number_counts_as_missing_and_stops_nothing(
    tmp_path: Path,
) -> None:
    lines = ["1e1", "x", " 10 ", "nan", "inf", "", "+10", "1_0", "0x10", "1e999"]
    path = write_csv(
        tmp_path / "a.csv",
        "amount,kind,fraud\n" + "".join(f"{cell},pos,0\n" for cell in lines),
    )

    inputs = tables.encode(read_csv(path), DATA).inputs[:, 0]

    ten, none = np.float32(-0.8), 0
    assert inputs.tolist() == pytest.approx(
        [ten, none, ten, none, none, none, ten, none, none, 1]
    )


def test_a_broken_csv_line_is_left_out_and_its_neighbours_are_not(
    tmp_path: Path,
) -> None:
    path = write_csv(
        tmp_path / "a.csv",
        b"\xef\xbb\xbfamount,kind,fraud\r\n0,pos,1\r\n5,\xff\xfe,0\r\n"
        b'100,"two\r\nlines",1\r\n50,pos,0,surplus\r\n25\r\n75,web,0',
    )

    examples = tables.encode(read_csv(path), DATA)

    assert examples.inputs[:, 0].tolist() == [-1, 1, 0, 0.5]
    assert examples.targets.tolist() == [1, 1, 0, 0]


def test_a_compressed_csv_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"amount\tkind\tfraud\n100\tpos\t1\n"))

    assert tables.encode(read_csv(path), DATA).inputs.tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize("text", ["amount,kind,fraud\n", "amount,kind,fraud"])
def test_a_file_without_rows_is_an_empty_table(text: str, tmp_path: Path) -> None:
    read = read_csv(write_csv(tmp_path / "a.csv", text))

    assert len(tables.encode(read, DATA)) == 0


def test_a_missing_column_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", f"amuont,kind,fraud\n{SECRET},pos,0\n")

    with pytest.raises(DataError, match=r"'amount' is missing in a\.csv") as raised:
        read_csv(path)

    assert raised.value.error_id == "GLD-D003"
    assert "'amuont'" in raised.value.why
    assert SECRET not in str(raised.value)


def test_a_text_column_where_numbers_are_due_is_refused_by_name_only() -> None:
    rows = table([1]).set_column(0, "amount", pa.array([SECRET]))

    with pytest.raises(DataError, match="'amount' holds string") as raised:
        tables.encode(rows, DATA)

    assert raised.value.error_id == "GLD-D004"
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("kind", [pa.float64(), pa.timestamp("s"), pa.binary()])
def test_a_category_of_another_type_is_refused(kind: pa.DataType) -> None:
    rows = table([1]).set_column(1, "kind", pa.nulls(1, kind))

    with pytest.raises(DataError, match="'kind'"):
        tables.check(rows, DATA)


def test_a_parquet_file_of_the_wrong_type_is_refused_before_a_row_is_read(
    tmp_path: Path,
) -> None:
    rows = table([1]).set_column(0, "amount", pa.array([SECRET]))
    parquet.write_table(rows, tmp_path / "a.parquet")

    with pytest.raises(DataError, match="'amount'") as raised:
        tables.check_file("parquet", tmp_path / "a.parquet", {}, DATA)

    assert SECRET not in str(raised.value)


def test_a_csv_number_column_full_of_text_is_told_to_the_engineer(
    tmp_path: Path,
) -> None:
    path = write_csv(
        tmp_path / "a.csv",
        f"amount,kind,fraud\n{SECRET},pos,0\n{SECRET},pos,0\n7,pos,0\n",
    )
    tables.check_file("csv", path, {}, DATA)  # names are fine

    with pytest.raises(DataError, match="'amount' holds text") as raised:
        tables.check_cells(read_csv(path), DATA)

    assert SECRET not in str(raised.value)


def test_one_odd_csv_cell_among_numbers_passes_the_engineers_check(
    tmp_path: Path,
) -> None:
    path = write_csv(
        tmp_path / "a.csv", "amount,kind,fraud\nn/a,pos,0\n1,pos,0\n,pos,1\n"
    )

    tables.check_cells(read_csv(path), DATA)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("parquet", b"amount,kind,fraud\nSECRET-CELL,pos,0\n"),
        ("csv", b""),
        ("csv", b"\xff\xfe\x00"),
        ("csv", b"amount,amount,fraud\n"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    kind: tables.FileKind, content: bytes, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "file", content)

    with pytest.raises(DataError) as raised:
        tables.read(kind, path)

    assert raised.value.error_id == "GLD-D002"
    assert SECRET not in str(raised.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file") as raised:
        tables.read("csv", tmp_path / "none.csv")

    assert raised.value.error_id == "GLD-D001"


def test_a_hostile_column_name_is_a_name_and_no_query(tmp_path: Path) -> None:
    name = "a\"; COPY (SELECT 1) TO 'x.csv'; --"
    quoted = '"' + name.replace('"', '""') + '"'
    path = write_csv(tmp_path / "a.csv", f"{quoted},b\n1,2\n")

    read = tables.read("csv", path)

    assert read.column_names == [name, "b"]
    assert list(tmp_path.iterdir()) == [path]


def test_integers_booleans_and_decimals_are_numbers() -> None:
    columns = [
        pa.array([1, None], pa.int8()),
        pa.array([True, None]),
        pa.array([1, None], pa.decimal128(12, 2)),
        pa.nulls(2),
    ]
    read = [
        tables.encode(table([0, 0]).set_column(0, "amount", column), DATA)
        for column in columns
    ]

    one = np.float32(1 / 50 - 1)
    assert [examples.inputs[0, 0] for examples in read] == [one, one, one, 0]
    assert [examples.inputs[1, 0] for examples in read] == [0, 0, 0, 0]
