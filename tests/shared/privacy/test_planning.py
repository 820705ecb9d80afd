"""What a plan says it costs is what it costs, and what is said to fit does fit."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from guilder_shared.errors import PlanError
from guilder_shared.privacy import accounting, bounds, planning
from guilder_shared.privacy.events import Leaf
from guilder_shared.study import Study

StudyOf = Callable[..., Study]
LOUD = {"event": "gaussian", "noise_multiplier": 2.0}


def gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """By the exact curve of one Gaussian (Balle and Wang 2018, theorem 8)."""
    low, high = 0.0, 50_000.0

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    for _ in range(200):
        middle = (low + high) / 2
        mu = 1 / noise_multiplier
        first = normal(mu / 2 - middle / mu)
        second = normal(-mu / 2 - middle / mu)
        spent = first - math.exp(min(middle, 700)) * second
        low, high = (middle, high) if spent > delta else (low, middle)
    return high


def test_the_outlook_keeps_the_promise_and_grows_turn_by_turn(
    study_of: StudyOf,
) -> None:
    study = study_of(rounds=8)

    found = planning.outlook(study)

    turns, costs = zip(*found.by_turn, strict=True)
    assert turns == tuple(range(1, found.plan.num_turns + 1))
    assert list(costs) == sorted(costs)
    assert 0.99 * study.privacy.epsilon < found.epsilon <= study.privacy.epsilon
    assert costs[-1] == found.epsilon
    one_turn = gaussian_epsilon(found.schedule.noise_multiplier, study.privacy.delta)
    assert one_turn <= costs[0] <= 1.02 * one_turn


def test_every_other_schedule_keeps_the_same_promise(study_of: StudyOf) -> None:
    study = study_of(rounds=8, sample_rate=0.25)

    found = planning.outlook(study)

    asked = [(each.rounds, each.sample_rate) for each in found.others]
    assert asked == [(2, 0.25), (4, 0.25), (16, 0.25), (8, 0.5), (8, 1.0)]
    for each in found.others:
        changes = {"rounds": each.rounds, "sample_rate": each.sample_rate}
        training = study.training.model_copy(update=changes)
        other = study.model_copy(update={"training": training})
        assert each.noise_multiplier == accounting.solve(other).noise_multiplier
    noise = {(e.rounds, e.sample_rate): e.relative_noise for e in found.others}
    assert noise[2, 0.25] > noise[4, 0.25] > 1 > noise[8, 0.5] > noise[8, 1.0]


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 2.0, 4.0])
def test_the_turns_that_fit_are_the_most_that_fit(epsilon: float) -> None:
    found = planning.turns_that_fit(LOUD, 50, epsilon=epsilon, delta=1e-5)

    def cost(num_turns: int) -> float:
        return gaussian_epsilon(2.0 / math.sqrt(num_turns), 1e-5)

    assert found == 0 or cost(found) <= epsilon
    assert cost(found + 1) > epsilon * 0.99


def test_a_study_without_privacy_has_nothing_to_plan(study_of: StudyOf) -> None:
    with pytest.raises(PlanError) as raised:
        planning.outlook(study_of(privacy={"mechanism": "none"}))

    assert raised.value.error_id == "GLD-P100"


def test_an_epsilon_no_plan_can_meet_names_the_nearest(study_of: StudyOf) -> None:
    never: dict[str, Any] = {"epsilon": 1e-6, "delta": 1e-9}

    with pytest.raises(PlanError, match="at least"):
        planning.outlook(study_of(privacy=never, rounds=16, local_steps=100))


def asking(noise: str, **privacy: Any) -> Study:
    asks = {name: {"ask": "count"} for name in ("a", "b", "c")}
    column = {"kind": "number", "low": 0, "high": 1}
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "f", "recipe": "statistics", "purpose": "p"},
            "data": {"kind": "columns", "dataset": "d", "columns": {"k": column}},
            "statistics": {"noise": noise, "ask": asks},
            "privacy": {"unit": "record", "mechanism": "site-noise", **privacy},
            "aggregation": {"min_sites": 1},
        }
    )


def refusal(study: Study) -> PlanError:
    with pytest.raises(PlanError) as raised:
        accounting.solve(study)
    return raised.value


def fixed(error: PlanError, pattern: str) -> float:
    found = re.search(pattern + r" to at least ([0-9.e+-]+[0-9])", error.fix)
    assert found is not None, error.fix
    return float(found[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda make, epsilon: make(privacy={"epsilon": epsilon}, rounds=1),
        pytest.param(
            lambda make, epsilon: make(
                privacy={"epsilon": epsilon, "delta": 1e-9},
                sample_rate=0.3,
                local_steps=9,
            ),
            marks=pytest.mark.slow,
        ),
        lambda _, epsilon: asking("gaussian", epsilon=epsilon, delta=1e-6),
        lambda _, epsilon: asking("laplace", epsilon=epsilon, delta=1e-6),
        pytest.param(
            lambda _, epsilon: asking("discrete-gaussian", epsilon=epsilon, delta=1e-6),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_nearest_epsilon_that_is_named_can_be_had(
    study_of: StudyOf, make: Callable[[StudyOf, float], Study]
) -> None:
    error = refusal(make(study_of, 1e-6))

    nearest = fixed(error, r"privacy\.epsilon")

    assert error.error_id == "GLD-P001"
    assert accounting.solve(make(study_of, nearest)).noise_multiplier is not None


def test_the_nearest_share_for_charged_metrics_can_be_had(study_of: StudyOf) -> None:
    def study(share: float) -> Study:
        return study_of(evaluation={"on": "charged", "share": share})

    error = refusal(study(1e-6))

    assert error.error_id == "GLD-P110"
    found = accounting.solve(study(fixed(error, r"evaluation\.share")))
    assert found.measuring_noise is not None


def test_a_delta_below_what_the_arithmetic_takes_names_one_that_is_not(
    study_of: StudyOf,
) -> None:
    error = refusal(study_of(privacy={"delta": 1e-300}))

    nearest = fixed(error, r"privacy\.delta")

    assert "inf" not in str(error)
    assert accounting.solve(study_of(privacy={"delta": nearest})).noise_multiplier


def test_units_that_are_hardly_ever_drawn_are_planned_in_no_time(
    study_of: StudyOf,
) -> None:
    """Their noise is the least there may be, whose losses fill memories."""
    study = study_of(sample_rate=1e-9, local_steps=25, privacy={"delta": 1e-6})

    plan = accounting.solve(study)

    assert plan.noise_multiplier == pytest.approx(0.05, abs=1e-3)
    assert accounting.confirm(study, plan) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "steps"), [(0.05, 3), (0.11, 40)])
def test_wide_cells_for_little_noise_bound_what_fine_cells_would(
    noise: float, steps: int
) -> None:
    """Of unsampled steps the exact curve is known."""
    leaf = Leaf(noise, 1.0, steps)

    found = bounds.pld_epsilon((leaf,), 1e-6, 1e-4)

    exact = gaussian_epsilon(noise / math.sqrt(steps), 1e-6)
    assert exact * (1 - 1e-6) <= found <= 1.001 * exact


def test_a_unit_that_is_hardly_ever_drawn_costs_the_chance_that_it_is() -> None:
    leaf = Leaf(0.3, 1e-9, 100)

    assert bounds.on_grid((leaf,), 1e-6, 1e-3).epsilon == 0.0
    assert bounds.on_grid((leaf,), 0.9e-7, 1e-3).epsilon > 0.0
