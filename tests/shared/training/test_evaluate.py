"""Evaluation: the recipe's metrics of the model's own outputs."""

from typing import Any

import numpy as np
import pytest

from guilder_shared.errors import StudyError
from guilder_shared.models import registry
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import evaluate as room
from guilder_shared.training.evaluate import evaluate


@pytest.fixture
def study() -> Study:
    whole: dict[str, Any] = {
        "schema": 1,
        "study": {"name": "s", "recipe": "tabular-classification", "purpose": "p"},
        "data": {
            "kind": "table",
            "dataset": "d",
            "target": "y",
            "columns": {"x": {"kind": "number", "low": -1, "high": 1}},
        },
        "model": {"name": "logistic"},
        "training": {
            "rounds": 1,
            "local_steps": 1,
            "sample_rate": 1,
            "learning_rate": 1,
        },
        "privacy": {
            "unit": "record",
            "mechanism": "none",
            "epsilon": 1,
            "delta": 1e-5,
            "clip_norm": 1,
        },
        "aggregation": {"min_sites": 1},
        "evaluation": {"on": "none"},
    }
    return Study.model_validate(whole)


def line(slope: float, bias: float) -> registry.Weights:
    return {
        "0.weight": np.array([[slope]], np.float32),
        "0.bias": np.array([bias], np.float32),
    }


def rows(inputs: list[float], targets: list[float]) -> Examples:
    return Examples(
        np.array(inputs, np.float32).reshape(-1, 1), np.array(targets, np.float32)
    )


def test_a_known_line_has_known_metrics(study: Study) -> None:
    measured = evaluate(line(2, -1), study, rows([0, 1, 0.25, 1], [0, 1, 1, 0]))

    # log-odds -1, 1, -0.5, 1: of four pairs two are won and one is a tie
    assert measured["auc"] == pytest.approx(2.5 / 4)
    assert measured["accuracy"] == 0.5
    assert measured["loss"] == pytest.approx(
        np.mean(np.log1p(np.exp(np.array([-1.0, -1.0, 0.5, 1.0])))), rel=1e-6
    )


def test_rows_beyond_one_pass_count_too(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = rows([0.1 * n for n in range(10)], [0, 1] * 5)
    whole = evaluate(line(1, 0), study, examples)

    monkeypatch.setattr(room, "ROWS_PER_PASS", 3)

    assert evaluate(line(1, 0), study, examples) == whole


def test_no_rows_have_no_metrics(study: Study) -> None:
    assert evaluate(line(1, 0), study, rows([], [])) == {}


def test_weights_of_another_study_are_refused(study: Study) -> None:
    with pytest.raises(StudyError, match=r"0\.weight"):
        evaluate({"0.bias": np.zeros(1, np.float32)}, study, rows([0], [0]))
