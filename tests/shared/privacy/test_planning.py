"""What a plan says it costs is what it costs, and what is said to fit does fit."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from guilder_shared.errors import PlanError
from guilder_shared.privacy import accounting, planning
from guilder_shared.study import Study

StudyOf = Callable[..., Study]
LOUD = {"event": "gaussian", "noise_multiplier": 2.0}


def gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """By the exact curve of one Gaussian (Balle and Wang 2018, theorem 8)."""
    low, high = 0.0, 500.0

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
