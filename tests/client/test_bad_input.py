"""Bad numbers in a study or a step: each is refused by its id, or counts zero."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guilder_client.site import Site
from guilder_shared.errors import GuilderError, PlanError
from guilder_shared.privacy import make_private_step
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_simulations.studies import path_of


def study_with(*overrides: str) -> Study:
    return Study.load(path_of("breast-cancer"), overrides)


def step_of(model: nn.Module, **options: Any) -> Any:
    usual: dict[str, Any] = {
        "clip_norm": 1.0,
        "noise_multiplier": 0.0,
        "divisor": 4.0,
        "isolated": True,
    }
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return make_private_step(model, _losses, optimizer, **usual | options)


def _losses(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1)


@pytest.mark.parametrize(
    ("override", "error_id"),
    [
        ("training.sample_rate=0", "GLD-C012"),
        ("training.sample_rate=1.5", "GLD-C012"),
        ("training.sample_rate=nan", "GLD-C012"),
        ("privacy.clip_norm=0", "GLD-C012"),
        ("privacy.clip_norm=-1", "GLD-C012"),
        ("privacy.clip_norm=inf", "GLD-C012"),
        ("privacy.clip_norm=nan", "GLD-C012"),
        ("training.test_seed=3", "GLD-C013"),
    ],
)
def test_a_study_with_a_number_that_promises_nothing_is_refused(
    override: str, error_id: str
) -> None:
    with pytest.raises(GuilderError) as caught:
        study_with(override)

    assert caught.value.error_id == error_id


@pytest.mark.parametrize("name", ["clip_norm", "divisor"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_step_with_a_number_that_promises_nothing_is_refused(
    name: str, value: float
) -> None:
    with pytest.raises(PlanError) as caught:
        step_of(nn.Linear(3, 1), **{name: value})

    assert caught.value.error_id == "GLD-P050"


@pytest.mark.parametrize(
    ("layer", "error_id"),
    [(nn.BatchNorm1d(3), "GLD-P020"), (nn.LSTM(3, 3), "GLD-P054")],
)
def test_a_forbidden_layer_is_refused_before_any_row_is_read(
    layer: nn.Module, error_id: str
) -> None:
    with pytest.raises(PlanError) as caught:
        step_of(nn.Sequential(nn.Linear(3, 3), layer))

    assert caught.value.error_id == error_id


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e38])
def test_a_unit_whose_gradient_is_not_finite_counts_exactly_zero(bad: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    rows, targets = torch.randn(5, 3), torch.randn(5, 1)
    others = torch.tensor([0, 1, 3, 4])
    step = step_of(model, microbatch=8)

    rows[2] = bad
    total = step.clipped_sum(rows, targets)
    rows[2], targets[2] = -math.inf, math.inf
    again = step.clipped_sum(rows, targets)
    fewer = step.clipped_sum(rows[others], targets[others])  # added in another order

    assert torch.equal(total, again)
    assert torch.allclose(total, fewer, rtol=1e-14, atol=0)
    assert bool(total.any())


def test_no_data_is_a_step_of_noise() -> None:
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()

    step_of(model, noise_multiplier=1.0)(torch.zeros(0, 3), torch.zeros(0, 1))

    assert bool((model.weight != before).all())


def test_a_deployed_site_has_no_seed_whatever_a_study_says(
    site_at: Callable[..., Site], tmp_path: Path
) -> None:
    site = site_at(tmp_path / "a")
    study = study_with()
    seeded = study.training.model_copy(update={"test_seed": 3})  # past every check
    forged = study.model_copy(update={"training": seeded})

    roots = {
        TurnKeys.choose(
            one, site="a", round_no=1, turn_no=1, simulation_seed=site.seed
        ).root
        for one in (study, study, forged, forged)
    }

    assert site.seed is None
    assert len(roots) == 4
    assert b"simulation" not in study.canonical()
