"""A site's dataset: checked without rows, read only when asked."""

from pathlib import Path

import pyarrow as pa
import pytest

from guilder_client.data.source import from_table, open_source
from guilder_client.settings import DataSource
from guilder_shared.errors import DataError
from guilder_shared.study import TableData

DATA = TableData.model_validate(
    {
        "kind": "table",
        "dataset": "numbers",
        "target": "y",
        "columns": {"x": {"kind": "number", "low": 0, "high": 2}},
    }
)


def mapped(path: Path) -> DataSource:
    return DataSource.model_validate(
        {"kind": "csv", "path": str(path), "map": {"x": "Value"}, "public_size": 5}
    )


def test_opening_a_source_opens_no_file(tmp_path: Path) -> None:
    source = open_source(mapped(tmp_path / "none.csv"))

    assert source.public_size == 5
    with pytest.raises(DataError, match="cannot be opened"):
        source.check(DATA)


def test_rows_are_read_when_asked_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("Value,y\n1,0\n")
    source = open_source(mapped(path))
    source.check(DATA)
    path.write_text("Value,y\n1,0\n2,1\n")

    assert source.read(DATA).inputs.tolist() == [[0], [1]]


def test_the_check_without_rows_passes_a_file_whose_rows_are_bad(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("Value,y\nbad,0\nworse,1\n")
    source = open_source(mapped(path))

    source.check(DATA)
    assert source.read(DATA).inputs.tolist() == [[0], [0]]
    with pytest.raises(DataError, match="'x' holds text"):
        source.check_cells(DATA)


def test_an_empty_site_has_no_examples(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("Value,y\n")

    assert len(open_source(mapped(path)).read(DATA)) == 0


def test_rows_in_memory_are_a_source_too() -> None:
    source = from_table(pa.table({"x": [0.0], "y": [1]}), 7)

    source.check(DATA)
    assert source.public_size == 7
    assert source.read(DATA).inputs.tolist() == [[-1]]
    assert "0.0" not in repr(source)
