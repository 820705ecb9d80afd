"""The registry: the same model in NumPy and in torch, and nobody else's weights."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from guilder_shared import tasks
from guilder_shared.errors import StudyError
from guilder_shared.models import registry
from guilder_shared.study import Study


def study(*, recipe: str = "tabular-classification", **model: Any) -> Study:
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "s", "recipe": recipe, "purpose": "p"},
            "data": {
                "kind": "table",
                "dataset": "d",
                "target": "y",
                "columns": {
                    "b": {"kind": "number", "low": 0, "high": 1},
                    "a": {"kind": "category", "values": ["u", "v", "w"]},
                },
            },
            "model": model,
            "training": {
                "rounds": 1,
                "local_steps": 1,
                "sample_rate": 1,
                "learning_rate": 1,
            },
            "privacy": {
                "unit": "record",
                "mechanism": "site-noise",
                "epsilon": 1,
                "delta": 1e-5,
                "clip_norm": 1,
            },
            "aggregation": {"min_sites": 1},
            "evaluation": {"on": "none"},
        }
    )


MLP = study(name="mlp", hidden=[8, 5], prior=0.02)
LOGISTIC = study(name="logistic")


@pytest.mark.parametrize("one", [MLP, LOGISTIC], ids=["mlp", "logistic"])
def test_numpy_and_torch_agree_on_names_shapes_and_dtypes(one: Study) -> None:
    state = registry.build(one).state_dict()
    weights = registry.initial(one)

    assert {n: tuple(t.shape) for n, t in state.items()} == registry.shapes(one)
    assert {n: w.shape for n, w in weights.items()} == registry.shapes(one)
    assert list(state) == list(weights)
    assert all(w.dtype == np.float32 for w in weights.values())
    registry.check(weights, one)


def test_an_input_is_one_number_or_one_value_of_a_category() -> None:
    assert registry.num_inputs(MLP.data) == 4
    assert registry.shapes(MLP)["0.weight"] == (8, 4)


def test_the_model_maps_rows_to_one_log_odds_each() -> None:
    assert registry.build(MLP)(torch.zeros(3, 4)).shape == (3, 1)


def test_the_last_bias_starts_at_the_log_odds_of_the_prior() -> None:
    weights = registry.initial(MLP)

    assert weights["4.bias"].tolist() == [np.float32(math.log(0.02 / 0.98))]
    assert registry.initial(LOGISTIC)["0.bias"].tolist() == [0]


def test_the_start_follows_from_the_study_alone() -> None:
    other = study(name="mlp", hidden=[8, 5], prior=0.03)

    first, again = registry.initial(MLP), registry.initial(MLP)
    travelled = registry.initial(Study.from_canonical(MLP.canonical()))

    for name, weight in first.items():
        assert weight.tobytes() == again[name].tobytes() == travelled[name].tobytes()
    assert not np.array_equal(first["0.weight"], registry.initial(other)["0.weight"])


def test_hidden_weights_start_within_one_over_the_root_of_the_fan_in() -> None:
    weight = registry.initial(MLP)["2.weight"]

    assert np.abs(weight).max() <= 1 / math.sqrt(8)
    assert np.abs(weight).max() > 0.8 / math.sqrt(8)


@pytest.mark.parametrize(
    ("change", "error_id"),
    [
        ({"extra": np.zeros(1, np.float32)}, "GLD-C062"),
        ({"0.bias": np.zeros(7, np.float32)}, "GLD-C062"),
        ({"0.bias": np.zeros(8, np.float64)}, "GLD-C062"),
        ({"0.bias": np.full(8, np.nan, np.float32)}, "GLD-C063"),
        ({"0.bias": np.full(8, np.inf, np.float32)}, "GLD-C063"),
    ],
)
def test_weights_of_another_shape_or_not_finite_are_refused(
    change: dict[str, Any], error_id: str
) -> None:
    with pytest.raises(StudyError) as raised:
        registry.check(registry.initial(MLP) | change, MLP)

    assert raised.value.error_id == error_id


def test_a_missing_parameter_is_refused_by_name() -> None:
    weights = registry.initial(MLP)
    del weights["2.weight"]

    with pytest.raises(StudyError, match=r"2\.weight"):
        registry.check(weights, MLP)


@pytest.mark.parametrize(
    ("wrong", "error_id"),
    [
        (study(recipe="astrology", name="logistic"), "GLD-C060"),
        (study(name="oracle"), "GLD-C061"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(wrong: Study, error_id: str) -> None:
    with pytest.raises(StudyError) as raised:
        registry.initial(wrong)

    assert raised.value.error_id == error_id


def test_an_unknown_recipe_lists_what_is_installed() -> None:
    with pytest.raises(StudyError) as raised:
        tasks.recipe("astrology")

    assert "tabular-classification" in raised.value.why


def test_losses_are_one_a_row_and_a_metric_without_a_class_is_left_out() -> None:
    recipe = tasks.recipe("tabular-classification")

    losses = recipe.losses(torch.zeros(2, 1), torch.tensor([0.0, 1.0]))
    measured = recipe.metrics(np.zeros(2, np.float32), np.zeros(2, np.float32))

    assert losses.tolist() == pytest.approx([math.log(2), math.log(2)])
    assert set(measured) == {"accuracy", "loss"}


def test_starting_a_model_does_not_load_torch() -> None:
    script = (
        "import sys; from guilder_shared.models import registry, tabular; "
        "tabular.initial((4, 8, 1), seed=1, prior=0.1); "
        "from guilder_shared.models import starting, text, unet, vision; "
        "starting.draw(vision.resnet18_starts(3) | unet.starts(1, 8), seed=1); "
        "starting.draw(text.starts(text.small(9, 9, 8)), seed=1); "
        "assert 'torch' not in sys.modules and 'pyarrow' not in sys.modules"
    )

    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)

    assert done.returncode == 0
