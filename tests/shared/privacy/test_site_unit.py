"""A site as the unit: all its rows make one contribution of at most C."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # no stubs
from torch import Tensor

from guilder_shared import tasks
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.models.registry import Weights
from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.bookkeeping.step import PrivateStep
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.fit import fit

Make = Callable[..., Study]
Total = NDArray[np.float64]
KEYS = TurnKeys.seeded(8, site="site-1", round_no=1)
CLIP_MARGIN = 1 - 2.0**-10
PUBLIC_SIZE = 300


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> list[Total]:
    """The exact sums of a turn, as they are just before the noise."""
    seen: list[Total] = []
    release = PrivateStep.release

    def watch(self: PrivateStep, total: Tensor) -> None:
        seen.append(np.array(total.numpy()) / PUBLIC_SIZE)
        release(self, total)

    monkeypatch.setattr(PrivateStep, "release", watch)
    return seen


def site_study(study_of: Make, clip_norm: float = 0.01, **parts: Any) -> Study:
    privacy = {"unit": "site", "clip_norm": clip_norm} | parts.pop("privacy", {})
    return study_of(privacy=privacy, model={"name": "mlp", "hidden": [5]}, **parts)


def rows(num: int) -> Examples:
    rng = np.random.default_rng(1)
    inputs = rng.uniform(-1, 1, (num, 3)).astype(np.float32)
    return Examples(inputs, (inputs[:, 0] > 0.2).astype(np.float32))


def trained(study: Study, examples: Examples, keys: TurnKeys = KEYS) -> Weights:
    private = study.privacy.mechanism != "none"
    plan = Plan(1.5 if private else None, 18, SENSITIVITY_SLACK)
    weights = registry.initial(study)
    return fit(weights, study, plan, examples, public_size=PUBLIC_SIZE, keys=keys)


def flat(weights: Weights, study: Study) -> NDArray[np.float64]:
    names = [name for name, _ in registry.build(study).named_parameters()]
    return np.concatenate([weights[n].reshape(-1).astype(np.float64) for n in names])


def mean_gradient(study: Study, examples: Examples) -> Total:
    """Of all rows over the public size, in float64, by autograd."""
    module = registry.build(study).double()
    start = registry.initial(study).items()
    module.load_state_dict({n: torch.from_numpy(w).double() for n, w in start})
    losses = tasks.recipe(study.study.recipe).losses
    inputs = torch.from_numpy(examples.inputs).double()
    answers = torch.from_numpy(examples.targets).double()
    total = losses(module(inputs), answers).sum()
    grads = torch.autograd.grad(total, list(module.parameters()))
    found: Total = torch.cat([g.reshape(-1) for g in grads]).numpy() / PUBLIC_SIZE
    return found


@pytest.mark.parametrize("num", [1, 200, 9_000])  # one pass, and several
@pytest.mark.parametrize("clip_norm", [0.01, 1e3])
def test_a_site_adds_its_mean_gradient_clipped_once(
    study_of: Make, sums: list[Total], num: int, clip_norm: float
) -> None:
    study = site_study(study_of, clip_norm)
    exact = mean_gradient(study, rows(num))

    trained(study, rows(num))

    factor = min(1.0, clip_norm * CLIP_MARGIN / float(np.linalg.norm(exact)))
    assert np.linalg.norm(sums[0] - exact * factor) <= 1e-5 * np.linalg.norm(
        exact * factor
    )


def test_all_rows_against_none_moves_the_sum_by_no_more_than_c(
    study_of: Make, sums: list[Total]
) -> None:
    study = site_study(study_of)

    for num in (500, 0):
        trained(study, rows(num))

    assert not sums[1].any()
    assert np.linalg.norm(sums[0] - sums[1]) <= study.privacy.clip_norm


def test_a_site_with_a_row_that_is_no_number_adds_nothing_and_goes_on(
    study_of: Make, sums: list[Total]
) -> None:
    examples = rows(50)
    examples.inputs[7] = np.nan

    trained(site_study(study_of), examples)

    assert not sums[0].any()


def test_the_noise_is_that_of_one_contribution_whatever_the_public_size(
    study_of: Make,
) -> None:
    study = site_study(study_of, num_columns=2000)

    update = flat(
        trained(
            study, Examples(np.empty((0, 2000), np.float32), np.empty(0, np.float32))
        ),
        study,
    )

    z = float(stats.norm.isf(1e-6 / 2))
    expected = (1.5 * study.privacy.clip_norm) ** 2  # learning rate 1, divisor 1
    assert abs(update.var() / expected - 1) < z * (2 / update.size) ** 0.5 + 1e-3


def test_without_noise_a_step_descends_the_mean(study_of: Make) -> None:
    study = site_study(study_of, 1e3, privacy={"mechanism": "none"})

    update = flat(trained(study, rows(400)), study)

    assert update == pytest.approx(-mean_gradient(study, rows(400)), abs=1e-6)


def test_one_coin_decides_for_the_whole_site(study_of: Make, sums: list[Total]) -> None:
    study = site_study(study_of, sample_rate=0.5, local_steps=40)

    trained(study, rows(20))

    there = sum(bool(total.any()) for total in sums)
    assert (len(sums), 5 < there < 35) == (40, True)
