"""Which studies of statistics there may be."""

from typing import Any

import pytest
from pydantic import ValidationError

from guilder_shared.errors import StudyError
from guilder_shared.models import registry
from guilder_shared.study import Study

AGE = {"kind": "number", "low": 0, "high": 100}
KIND = {"kind": "category", "values": ["a", "b"]}
COUNT = {"ask": "count"}


def parts(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "schema": 1,
        "study": {"name": "f", "recipe": "statistics", "purpose": "p"},
        "data": {"kind": "columns", "dataset": "d"}
        | {"columns": {"age": AGE, "kind": KIND}},
        "statistics": {"noise": "gaussian", "ask": {"z": COUNT, "a": COUNT}},
        "privacy": {"unit": "record", "mechanism": "site-noise"}
        | {"epsilon": 1.0, "delta": 1e-6},
        "aggregation": {"min_sites": 1},
    }
    for name, change in changes.items():
        whole[name] = whole.get(name, {}) | change
    return whole


def asking(question: dict[str, Any], noise: str = "gaussian") -> dict[str, Any]:
    return parts(statistics={"noise": noise, "ask": {"q": question}})


def test_what_trains_nothing_need_not_be_written_and_travels_whole() -> None:
    study = Study.model_validate(parts())

    assert (study.measuring_round, study.training_rounds, study.num_turns) == (1, 0, 1)
    assert dict(registry.shapes(study)) == registry.initial(study) == {}
    assert Study.from_canonical(study.canonical()) == study


def test_questions_are_ordered_as_the_form_that_travels_orders_them() -> None:
    study = Study.model_validate(parts())

    assert study.statistics is not None
    assert list(study.statistics.ask) == ["a", "z"]


def test_there_is_no_model_to_check_and_no_training_to_audit() -> None:
    study = Study.model_validate(parts())

    for ask in (registry.build, registry.inputs, registry.demand_model):
        with pytest.raises(StudyError) as caught:
            ask(study)
        assert caught.value.error_id == "GLD-C137"


@pytest.mark.parametrize(
    ("whole", "error_id"),
    [
        (parts(study={"recipe": "tabular-classification"}), "GLD-C134"),
        (parts(data={"kind": "table", "target": "y"}), "GLD-C134"),
        (asking({"ask": "mean", "column": "none"}), "GLD-C135"),
        (asking({"ask": "mean", "column": "kind"}), "GLD-C135"),
        (asking({"ask": "histogram", "column": "age"}), "GLD-C135"),
        (asking({"ask": "histogram", "column": "kind", "edges": [0, 1]}), "GLD-C135"),
        (asking({"ask": "histogram", "column": "age", "edges": [1, 0]}), "GLD-C135"),
        (asking({"ask": "mean", "column": "age"}, "laplace"), "GLD-C136"),
        (parts(privacy={"unit": "site"}), "GLD-C136"),
        (parts(privacy={"mechanism": "none"}), "GLD-C136"),
    ],
)
def test_what_does_not_fit_is_a_mistake_of_the_file(
    whole: dict[str, Any], error_id: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Study.model_validate(whole)

    found = [
        each.error_id
        for mistake in caught.value.errors()
        for each in mistake["ctx"]["error"].found
    ]
    assert error_id in found
