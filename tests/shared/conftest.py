"""What tests of the shared rooms begin with."""

from collections.abc import Callable
from typing import Any

import pytest

from guilder_shared.study import Study


@pytest.fixture(scope="session")
def study_of() -> Callable[..., Study]:
    """A small study; keywords go to [training], or to the table of their name."""
    return make_study


def make_study(
    *,
    privacy: dict[str, Any] | None = None,
    aggregation: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    person: str | None = None,
    num_columns: int = 3,
    **training: Any,
) -> Study:
    columns = {
        f"c{i}": {"kind": "number", "low": -1, "high": 1} for i in range(num_columns)
    }
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "s", "recipe": "tabular-classification", "purpose": "p"},
            "data": {
                "kind": "table",
                "dataset": "d",
                "target": "y",
                "person": person,
                "columns": columns,
            },
            "model": model or {"name": "logistic"},
            "training": {
                "rounds": 16,
                "local_steps": 1,
                "sample_rate": 1.0,
                "learning_rate": 1.0,
            }
            | training,
            "privacy": {
                "unit": "record",
                "mechanism": "site-noise",
                "epsilon": 3.0,
                "delta": 1e-4,
                "clip_norm": 0.5,
            }
            | (privacy or {}),
            "aggregation": {"min_sites": 1, "spare_turns": 2} | (aggregation or {}),
            "evaluation": evaluation or {"on": "none"},
        }
    )
