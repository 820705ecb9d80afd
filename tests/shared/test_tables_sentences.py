"""Texts: from files to tokens by a public rule, one row at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from guilder_shared import tables
from guilder_shared.errors import DataError
from guilder_shared.models import tokens
from guilder_shared.study import TextData


def contract(**change: Any) -> TextData:
    keys = {
        "kind": "texts",
        "dataset": "d",
        "target": "label",
        "max_tokens": 6,
        "classes": ["good", "bad"],
        "words": "hashed",
        "vocabulary": 1000,
    }
    return TextData.model_validate(keys | change)


def test_a_csv_file_becomes_tokens_and_classes(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"Well, well",good\n, bad \nno,ugly\n')

    data = contract()
    tables.check_file("csv", path, {}, data)
    found = tables.encode(tables.read("csv", path, {}, tables.needed(data)), data)

    assert found.inputs.dtype == np.int64
    assert found.targets.tolist() == [0, 1]
    first, well, comma, again, *rest = found.inputs[0].tolist()
    assert first == tokens.FIRST
    assert well == again != comma
    assert rest == [0, 0]
    assert found.inputs[1].tolist() == [tokens.FIRST, 0, 0, 0, 0, 0]


def test_words_are_hashed_alike_everywhere() -> None:
    cut = tokens.encode(["My card, PLEASE!"], contract())

    assert cut[0].tolist() == [1, 505, 977, 832, 630, 381]


def test_a_long_text_is_cut_and_costs_no_more() -> None:
    cut = tokens.encode(["word " * 1_000_000, "word"], contract())

    assert cut[0].tolist() == [cut[1, 0], *[cut[1, 1]] * 5]


def test_cells_that_are_no_text_stop_nothing() -> None:
    cells = pa.array([b"caf\xe9", None, b"\xff\xfe"], pa.binary())
    texts = pa.StringArray.from_buffers(3, *cells.buffers()[1:], cells.buffers()[0], 1)
    table = pa.table({"text": texts, "label": ["good"] * 3})

    found = tables.encode(table, contract())
    alone = [tables.encode(table.slice(n, 1), contract()).inputs for n in range(3)]

    assert np.array_equal(found.inputs, np.concatenate(alone))


@pytest.mark.parametrize(
    "columns",
    [
        {"text": pa.array([1.5]), "label": pa.array(["good"])},
        {"text": pa.array(["a"]), "label": pa.array([1.5])},
        {"text": pa.array([b"a"]), "label": pa.array(["good"])},
    ],
)
def test_columns_of_other_types_are_refused(columns: dict[str, pa.Array]) -> None:
    with pytest.raises(DataError) as raised:
        tables.check(pa.table(columns), contract())

    assert raised.value.error_id == "GLD-D004"


def test_most_rows_of_no_class_are_told_to_the_engineer_without_a_cell() -> None:
    table = pa.table({"text": ["a"] * 3, "label": ["good", "secret", "other"]})

    with pytest.raises(DataError) as raised:
        tables.check_cells(table, contract())

    assert raised.value.error_id == "GLD-D026"
    assert "secret" not in str(raised.value)


def test_a_person_comes_with_each_text() -> None:
    table = pa.table({"text": ["a", "b"], "label": ["good"] * 2, "who": [7, None]})

    found = tables.encode(table, contract(person="who"))

    assert found.units is not None
    assert len(found) == len(found.units) == 1
