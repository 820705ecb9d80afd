"""Tables whose target is one of several declared values, from files to rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from guilder_shared import tables
from guilder_shared.errors import DataError
from guilder_shared.models import registry
from guilder_shared.study import Study, TableData

LEVELS = ["low", "middle", "high"]


def contract(**change: Any) -> TableData:
    keys = {
        "kind": "table",
        "dataset": "d",
        "target": "level",
        "classes": LEVELS,
        "columns": {"x": {"kind": "number", "low": 0, "high": 1}},
    }
    return TableData.model_validate(keys | change)


def study(model: dict[str, Any], **data: Any) -> Study:
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "s", "recipe": "tabular-classification", "purpose": "p"},
            "data": contract(**data).model_dump(mode="json", exclude_none=True),
            "model": model,
            "training": {
                "rounds": 2,
                "local_steps": 1,
                "sample_rate": 1.0,
                "learning_rate": 1.0,
            },
            "privacy": {
                "unit": "record",
                "mechanism": "site-noise",
                "epsilon": 3.0,
                "delta": 1e-4,
                "clip_norm": 0.5,
            },
            "aggregation": {"min_sites": 1},
            "evaluation": {"on": "none"},
        }
    )


@pytest.mark.parametrize("person", [None, "who"])
def test_a_row_has_the_number_of_its_class_and_one_of_none_is_left_out(
    tmp_path: Path, person: str | None
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "x,level,who\n1,high,a\n0.5, low ,b\n0,unknown,c\n0,,d\n0,2,e\n1,middle,\n"
    )
    data = contract(person=person)

    tables.check_file("csv", path, {}, data)
    found = tables.encode(tables.read("csv", path, {}, tables.needed(data)), data)

    assert found.targets.tolist() == ([2, 0, 1] if person is None else [2, 0])
    assert found.inputs[:2, 0].tolist() == [1, 0]
    assert (found.units is None) == (person is None)


@pytest.mark.parametrize(
    "cells", [pa.array([1, 0, 7]), pa.array(["1", "0", "x"]).dictionary_encode()]
)
def test_classes_may_be_whole_numbers_or_a_dictionary(
    tmp_path: Path, cells: Any
) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"x": [0.0, 1.0, 0.5], "level": cells}), path)
    data = contract(classes=["0", "1"])

    tables.check_file("parquet", path, {}, data)
    table = tables.read("parquet", path, {}, tables.needed(data))

    assert tables.encode(table, data).targets.tolist() == [1, 0]


def test_a_target_of_fractions_is_no_class() -> None:
    table = pa.table({"x": [0.1], "level": [0.5]})

    with pytest.raises(DataError) as caught:
        tables.check(table, contract())

    assert caught.value.error_id == "GLD-D004"


def test_an_engineer_hears_where_most_rows_have_no_class() -> None:
    table = pa.table({"x": [0.1, 0.2, 0.3], "level": ["low", "Low", "LOW"]})

    tables.check(table, contract())
    with pytest.raises(DataError) as caught:
        tables.check_cells(table, contract())

    assert caught.value.error_id == "GLD-D026"
    assert "LOW" not in str(caught.value)


def test_a_model_has_an_output_for_each_class() -> None:
    three = study({"name": "mlp", "hidden": [5]})
    weights = registry.initial(three)

    module = registry.load(weights, three)

    assert registry.shapes(three)["2.weight"] == weights["2.weight"].shape == (3, 5)
    assert registry.inputs(three).classes == 3
    assert module[-1].out_features == 3  # type: ignore[index]
    assert not weights["2.bias"].any()


def test_the_digest_of_a_study_of_zero_and_one_is_as_before() -> None:
    before = study({"name": "logistic"}, classes=None)

    assert b"classes" not in before.canonical()


def test_one_rate_is_no_prior_of_several_classes() -> None:
    with pytest.raises(ValueError, match=r"with data\.classes"):
        study({"name": "logistic", "prior": 0.1})


def test_a_class_is_named_once() -> None:
    with pytest.raises(ValueError, match="more than once"):
        contract(classes=["a", "b", "a"])


def test_rows_are_encoded_one_by_one() -> None:
    table = pa.table({"x": [0.1, 0.9, 0.4], "level": ["low", "?", "high"]})
    data = contract()

    whole = tables.encode(table, data)

    alone = [tables.encode(table.slice(n, 1), data) for n in range(3)]
    assert np.array_equal(whole.targets, np.concatenate([e.targets for e in alone]))
    assert np.array_equal(whole.inputs, np.concatenate([e.inputs for e in alone]))
