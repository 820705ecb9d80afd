"""Mechanisms on different units: each unit pays for the one that it is in."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from guilder_shared.errors import PlanError
from guilder_shared.messages import Plan
from guilder_shared.privacy import accounting
from guilder_shared.privacy.events import (
    MOST_CASES,
    Leaf,
    gaussian_event,
    merge,
    parallel,
    self_composed,
    unprotected_event,
)
from guilder_shared.study import Study

Make = Callable[..., Study]
CHARGED = {"on": "charged", "rows": 0.3, "share": 0.5}
STEPS = self_composed(gaussian_event(1.1, sample_rate=0.02), 500)
ONCE = gaussian_event(2.0)
ORDERS = (6, 16, 64)


def test_a_unit_meets_one_of_them_however_often_they_are_repeated() -> None:
    turn = parallel([STEPS, ONCE])

    found = merge([(self_composed(turn, 3), 2), (ONCE, 1)])

    trained = (Leaf(1.1, 0.02, 3000), Leaf(2.0, 1.0, 1))
    assert found is not None
    assert set(found) == {trained, (Leaf(2.0, 1.0, 7),)}


def test_both_together_cost_what_the_dearer_one_costs() -> None:
    def alone(event: Any) -> float:
        return accounting.epsilon([(event, 1)], 1e-6)

    both = parallel([STEPS, ONCE])

    assert alone(both) == max(alone(STEPS), alone(ONCE))
    one, other = (accounting.renyi(event, ORDERS) for event in (STEPS, ONCE))
    assert accounting.renyi(both, ORDERS) == [*map(max, one, other)]
    evidence = accounting.evidence(both, 1, 1e-6)
    assert evidence is not None
    assert evidence["pld"] == pytest.approx(alone(both), rel=1e-5)
    assert evidence["prv"] == pytest.approx(evidence["pld"], rel=0.02)


def test_of_many_studies_the_sum_of_all_is_counted_and_never_less() -> None:
    pairs = [(gaussian_event(4.0 + i), gaussian_event(5.5 + i)) for i in range(6)]
    studies = [parallel(pair) for pair in pairs]

    cases = merge([(study, 1) for study in studies]) or ()

    assert len(cases) <= MOST_CASES < 2 ** len(pairs)
    counted = accounting.epsilon([(study, 1) for study in studies], 1e-6)
    dearer = accounting.epsilon([(pair[0], 1) for pair in pairs], 1e-6)
    assert counted >= dearer


def test_one_without_noise_leaves_all_unprotected() -> None:
    assert merge([(parallel([ONCE, unprotected_event()]), 1)]) is None


@pytest.mark.parametrize(
    "event",
    [
        parallel([]),
        parallel([ONCE]),
        parallel([ONCE] * (MOST_CASES + 1)),
        parallel([ONCE, {"event": "gaussian"}]),
        {"event": "parallel", "of": ONCE},
        {"event": "parallel", "of": [ONCE, ONCE], "more": 1},
        {"event": "poisson-sampled", "sampling_probability": 0.5,
         "of": parallel([ONCE, ONCE])},
    ],
)  # fmt: skip
def test_a_malformed_one_is_refused(event: Any) -> None:
    with pytest.raises(PlanError) as caught:
        merge([(event, 1)])

    assert caught.value.error_id == "GLD-P003"


@pytest.fixture(scope="module")
def solved(study_of: Make) -> tuple[Study, Plan]:
    study = study_of(evaluation=CHARGED)
    return study, accounting.solve(study)


def test_holding_units_out_costs_those_that_are_trained_on_one_turn_more(
    study_of: Make, solved: tuple[Study, Plan]
) -> None:
    study, plan = solved
    longer = accounting.solve(study_of(rounds=17))

    assert plan.num_turns == 19  # 16 rounds, one to measure, two to spare
    assert plan.noise_multiplier == longer.noise_multiplier
    assert accounting.confirm(study, plan) == accounting.confirm(
        study_of(rounds=17), longer
    )


def test_one_release_after_all_turns_costs_the_declared_share(
    solved: tuple[Study, Plan],
) -> None:
    study, plan = solved
    assert plan.measuring_noise is not None
    instalments = [(gaussian_event(plan.measuring_noise), plan.num_turns)]
    at_once = [(gaussian_event(plan.measuring_noise / plan.num_turns**0.5), 1)]

    cost = accounting.epsilon(instalments, study.privacy.delta)

    assert 0.99 * 1.5 <= cost <= 1.5
    assert accounting.epsilon(at_once, study.privacy.delta) == pytest.approx(
        cost, rel=1e-4
    )


@pytest.mark.parametrize(
    ("noise", "error_id"),
    [(0.5, "GLD-P002"), (None, "GLD-P005"), (0.0, "GLD-P005"), (-9.0, "GLD-P005")],
)
def test_a_servers_plan_with_less_noise_on_the_metrics_is_refused(
    solved: tuple[Study, Plan], noise: float | None, error_id: str
) -> None:
    study, plan = solved

    with pytest.raises(PlanError) as caught:
        accounting.confirm(study, replace(plan, measuring_noise=noise))

    assert caught.value.error_id == error_id


def test_a_share_that_no_noise_can_meet_names_the_nearest(study_of: Make) -> None:
    study = study_of(
        evaluation={**CHARGED, "share": 1e-6}, privacy={"epsilon": 0.5}, rounds=9000
    )

    with pytest.raises(PlanError, match=r"cost .* even with") as caught:
        accounting.solve(study)

    assert caught.value.error_id == "GLD-P110"
