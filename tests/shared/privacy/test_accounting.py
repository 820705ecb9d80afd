"""Accounting: published figures, plans that keep promises, and plans that do not."""

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from guilder_shared.errors import PlanError, StudyError
from guilder_shared.messages import Plan
from guilder_shared.privacy import accounting, bounds
from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.events import (
    Event,
    gaussian_event,
    merge,
    self_composed,
    unprotected_event,
)
from guilder_shared.study import Study

Make = Callable[..., Study]

PUBLISHED = self_composed(gaussian_event(1.0, sample_rate=0.0256), 500)
CARD_FRAUD = {"sample_rate": 0.01, "local_steps": 25, "privacy": {"delta": 1e-6}}


def test_epsilon_agrees_with_the_published_figures() -> None:
    fine = accounting.epsilon([(PUBLISHED, 1)], 1e-5)
    coarse = accounting.epsilon([(PUBLISHED, 1)], 1e-5, grid="coarse")

    # 3.6163 on grid 1e-4, 3.6165 on 1e-3; ours adds the arithmetic's residue.
    assert fine == pytest.approx(3.6163, abs=1e-3)
    assert coarse == pytest.approx(3.6165, abs=1e-3)
    assert fine > 3.6162


def test_the_renyi_bound_agrees_with_the_published_figure() -> None:
    (leaves,) = merge([(PUBLISHED, 1)]) or ()

    assert bounds.renyi_epsilon(leaves, 1e-5, None) == pytest.approx(4.057, abs=1e-3)


def test_a_plain_gaussian_agrees_with_its_closed_form() -> None:
    """Balle and Wang 2018: delta = P(eps) - e^eps P'(eps), solved exactly."""
    from scipy.stats import norm  # type: ignore[import-untyped]  # no stubs

    sigma, num_steps = 5.0, 18
    value = accounting.epsilon([(gaussian_event(sigma), num_steps)], 1e-5)

    mu = math.sqrt(num_steps) / sigma
    delta = norm.cdf(mu / 2 - value / mu) - math.exp(value) * norm.cdf(
        -mu / 2 - value / mu
    )
    assert delta < 1e-5  # epsilon is never too small
    assert delta == pytest.approx(1e-5, rel=5e-3)  # and hardly too large


def test_what_the_noise_arithmetic_costs_is_in_every_figure() -> None:
    (leaves,) = merge([(PUBLISHED, 1)]) or ()
    ideal = bounds.pld_epsilon(leaves, 1e-5, 1e-4)
    arithmetic = accounting.residue([(PUBLISHED, 1)], epsilon=ideal, delta=1e-5)

    charged = accounting.epsilon([(PUBLISHED, 1)], 1e-5)

    assert charged >= ideal + arithmetic.epsilon
    assert charged == pytest.approx(ideal, abs=1e-3)


def test_how_events_are_grouped_does_not_change_epsilon() -> None:
    step = gaussian_event(1.1, sample_rate=0.05)

    together = accounting.epsilon([(self_composed(step, 60), 1)], 1e-5)
    apart = accounting.epsilon([(step, 20), (self_composed(step, 4), 10)], 1e-5)

    assert together == apart


def test_different_events_compose_to_more_than_either() -> None:
    one, other = gaussian_event(2.0), gaussian_event(1.5, sample_rate=0.1)

    def cost(*events: Event) -> float:
        return accounting.epsilon([(e, 3) for e in events], 1e-5, grid="coarse")

    assert max(cost(one), cost(other)) < cost(one, other) < cost(one) + cost(other)


def test_no_event_costs_nothing_and_no_protection_costs_everything() -> None:
    assert accounting.epsilon([], 1e-5) == 0
    assert accounting.epsilon([(unprotected_event(), 1)], 1e-5) == math.inf
    assert accounting.renyi(unprotected_event(), [6, 8]) == [math.inf, math.inf]


def test_renyi_orders_of_a_gaussian_are_its_closed_form() -> None:
    orders = [6, 8, 10, 12, 16, 24, 32, 64]

    values = accounting.renyi(self_composed(gaussian_event(3.0), 7), orders)

    assert values == pytest.approx([7 * a / (2 * 3.0**2) for a in orders])


def test_renyi_of_a_sampled_gaussian_is_the_binomial_sum() -> None:
    """Mironov, Talwar and Zhang 2019, section 3.3, at an integer order."""
    q, z, a = 0.2, 1.3, 6
    moment = sum(
        math.comb(a, k) * (1 - q) ** (a - k) * q**k * math.exp(k * (k - 1) / (2 * z**2))
        for k in range(a + 1)
    )

    (value,) = accounting.renyi(gaussian_event(z, sample_rate=q), [a])

    assert value == pytest.approx(math.log(moment) / (a - 1), rel=1e-9)


def test_a_tight_figure_above_the_loose_one_fails_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "pld_epsilon", lambda *_: 4.1)

    with pytest.raises(PlanError) as caught:
        accounting.epsilon([(PUBLISHED, 1)], 1.01e-5)

    assert caught.value.error_id == "GLD-P004"


def test_hostile_noise_is_answered_quickly_and_never_underestimated() -> None:
    hostile = self_composed(gaussian_event(0.05, sample_rate=0.9), 9_000_000)

    assert accounting.epsilon([(hostile, 1)], 1e-6) > 1e6


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_that_is_none_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        accounting.epsilon([(PUBLISHED, 1)], delta)


@pytest.mark.parametrize(
    ("rounds", "local_steps", "sample_rate", "delta", "expected"),
    [
        (16, 1, 1.0, 1e-4, 5.19),
        (10, 25, 0.01, 1e-6, 0.758),
        (20, 25, 0.01, 1e-6, 0.801),
    ],
)
def test_solve_finds_the_least_noise(
    study_of: Make,
    rounds: int,
    local_steps: int,
    sample_rate: float,
    delta: float,
    expected: float,
) -> None:
    study = study_of(
        rounds=rounds,
        local_steps=local_steps,
        sample_rate=sample_rate,
        privacy={"delta": delta},
    )

    plan = accounting.solve(study)

    assert plan.num_turns == rounds + 2
    assert plan.noise_multiplier is not None
    effective = plan.noise_multiplier / (1 + SENSITIVITY_SLACK)
    assert effective == pytest.approx(expected, rel=2e-3)
    assert 0.99 * 3 < accounting.confirm(study, plan) <= 3


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 8.0])
def test_solve_uses_the_whole_epsilon_small_or_large(
    study_of: Make, epsilon: float
) -> None:
    study = study_of(
        rounds=30, local_steps=25, sample_rate=0.02, privacy={"epsilon": epsilon}
    )

    cost = accounting.confirm(study, accounting.solve(study))

    assert 0.985 * epsilon < cost <= epsilon


def test_a_plan_is_the_same_wherever_it_is_solved(study_of: Make) -> None:
    bounds.epsilon.cache_clear()
    first = accounting.solve(study_of())
    bounds.epsilon.cache_clear()

    assert accounting.solve(study_of()) == first


def test_the_charge_of_all_turns_is_the_charge_of_the_schedule(study_of: Make) -> None:
    study = study_of(**CARD_FRAUD)
    plan = Plan(0.9, 18, SENSITIVITY_SLACK)

    turns = [(accounting.turn_event(study, plan), plan.num_turns)]
    schedule = [(accounting.schedule_event(study, plan), 1)]

    assert merge(turns) == merge(schedule)


def test_events_carry_the_slack_even_if_a_plan_denies_it(study_of: Make) -> None:
    study = study_of()

    event = accounting.turn_event(study, Plan(5.0, 18, 0.0))

    assert event["of"]["noise_multiplier"] == 5.0 / (1 + SENSITIVITY_SLACK)


def test_no_noise_is_planned_and_reported_as_infinite(study_of: Make) -> None:
    study = study_of(privacy={"mechanism": "none"})

    plan = accounting.solve(study)

    assert plan == Plan(None, 18, SENSITIVITY_SLACK)
    assert accounting.turn_event(study, plan) == {"event": "none-protected"}
    assert accounting.confirm(study, plan) == math.inf


def test_a_plan_with_too_little_noise_is_refused(study_of: Make) -> None:
    study = study_of()
    plan = accounting.solve(study)
    assert plan.noise_multiplier is not None

    with pytest.raises(PlanError) as caught:
        accounting.confirm(
            study, replace(plan, noise_multiplier=plan.noise_multiplier * 0.99)
        )

    assert caught.value.error_id == "GLD-P002"


@pytest.mark.parametrize(
    "forged",
    [
        Plan(5.2, 17, SENSITIVITY_SLACK),
        Plan(5.2, 19, SENSITIVITY_SLACK),
        Plan(5.2, 18, 0.0),
        Plan(None, 18, SENSITIVITY_SLACK),
        Plan(0.0, 18, SENSITIVITY_SLACK),
        Plan(-5.2, 18, SENSITIVITY_SLACK),
        Plan(math.nan, 18, SENSITIVITY_SLACK),
        Plan(math.inf, 18, SENSITIVITY_SLACK),
        Plan(5.2, 18, math.nan),
    ],
)
def test_a_forged_plan_is_refused_before_anything_is_computed(
    study_of: Make, forged: Plan
) -> None:
    with pytest.raises(PlanError) as caught:
        accounting.confirm(study_of(), forged)

    assert caught.value.error_id == "GLD-P005"


def test_noise_planned_for_an_unprotected_study_is_refused(study_of: Make) -> None:
    study = study_of(privacy={"mechanism": "none"})

    with pytest.raises(PlanError, match="does not fit mechanism"):
        accounting.confirm(study, Plan(5.0, 18, SENSITIVITY_SLACK))


def test_an_impossible_promise_names_the_nearest_epsilon(study_of: Make) -> None:
    study = study_of(
        rounds=100_000 - 2, local_steps=10, privacy={"epsilon": 0.1, "delta": 1e-9}
    )

    with pytest.raises(PlanError, match="cannot be reached") as caught:
        accounting.solve(study)

    assert caught.value.error_id == "GLD-P001"
    assert "at least" in caught.value.fix


@pytest.mark.parametrize(
    "work",
    [
        accounting.solve,
        lambda study: accounting.confirm(study, Plan(1.0, 100_002, SENSITIVITY_SLACK)),
    ],
    ids=["solve", "confirm"],
)
def test_a_schedule_that_would_take_minutes_to_account_is_refused_at_once(
    study_of: Make, work: Callable[[Study], object]
) -> None:
    study = study_of(rounds=100_000, local_steps=100_000, sample_rate=1e-12)

    with pytest.raises(StudyError, match="10,000,200,000 private steps") as caught:
        work(study)

    assert caught.value.error_id == "GLD-C091"


def test_a_step_costs_the_same_whosever_presence_it_hides(study_of: Make) -> None:
    plans = [
        accounting.solve(study_of(privacy={"unit": unit}, sample_rate=1.0))
        for unit in ("record", "site")
    ]

    assert plans[0] == plans[1]


def test_a_promise_that_is_not_built_is_refused(study_of: Make) -> None:
    study = study_of(privacy={"mechanism": "joint-noise"})

    for check in (
        accounting.solve,
        lambda s: accounting.confirm(s, Plan(5.0, 18, SENSITIVITY_SLACK)),
    ):
        with pytest.raises(PlanError) as caught:
            check(study)
        assert caught.value.error_id == "GLD-P011"


def test_accounting_needs_no_torch_and_no_opacus() -> None:
    script = (
        "import sys\n"
        "from guilder_shared.privacy import accounting, events\n"
        "assert 'dp_accounting' not in sys.modules\n"
        "step = events.gaussian_event(1.0, sample_rate=0.1)\n"
        "assert accounting.epsilon([(step, 10)], 1e-5) > 0\n"
        "assert not {'torch', 'opacus'} & set(sys.modules)\n"
    )

    subprocess.run([sys.executable, "-c", script], check=True)
