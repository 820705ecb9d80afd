"""Three accountants, in code of three hands, say the same of the same events."""

import math
from collections.abc import Callable

import pytest

from guilder_shared.errors import PlanError
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy import accounting, bounds, prv
from guilder_shared.privacy.events import (
    Event,
    Leaf,
    gaussian_event,
    joint_noise_multiplier,
    merge,
    self_composed,
    unprotected_event,
)
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study

PUBLISHED = (Leaf(1.0, 0.0256, 500),)


def exact_gaussian(mu: float, delta: float) -> float:
    """Balle and Wang 2018, theorem 8, solved for epsilon."""
    low, high = 0.0, 1_000.0
    for _ in range(200):
        middle = (low + high) / 2
        first = 0.5 * math.erfc(-(mu / 2 - middle / mu) / math.sqrt(2))
        second = 0.5 * math.erfc((mu / 2 + middle / mu) / math.sqrt(2))
        spent = first - math.exp(min(middle, 700)) * second
        low, high = (middle, high) if spent > delta else (low, middle)
    return high


def test_the_published_figures_of_three_accountants_are_reproduced() -> None:
    found = prv.epsilon(PUBLISHED, 1e-5, 0.01)

    assert found is not None
    assert found.upper == pytest.approx(3.627, abs=1e-3)
    assert bounds.pld_epsilon(PUBLISHED, 1e-5, 1e-4) == pytest.approx(3.616, abs=1e-3)
    assert bounds.renyi_epsilon(PUBLISHED, 1e-5, None) == pytest.approx(4.057, abs=1e-3)


@pytest.mark.parametrize(
    ("leaf", "delta"),
    [
        pytest.param(Leaf(1 / 3, 1.0, 1), 0.78760074, marks=pytest.mark.slow),
        (Leaf(10 / 6, 1.0, 25), 0.78760074),  # of sensitivity 6
        (Leaf(0.67379294682, 0.01, 1), 1e-5),
        (Leaf(3.20956502598 / 6, 0.001, 25), 1e-5),
    ],
)
def test_noise_that_dp_accounting_gives_as_an_example_for_epsilon_1_is_epsilon_1(
    leaf: Leaf, delta: float
) -> None:
    """`accountant_test.py` of version 0.6.0, least noise for epsilon 1."""
    found = prv.epsilon((leaf,), delta, 1e-3)

    assert bounds.pld_epsilon((leaf,), delta, 1e-4) == pytest.approx(1, abs=1e-3)
    assert found is not None
    assert found.estimate == pytest.approx(1, abs=1e-3)
    assert found.lower <= 1 <= found.upper


def test_renyi_figures_that_dp_accounting_gives_as_examples_are_ours() -> None:
    """`rdp_privacy_accountant_test.py` of version 0.6.0."""
    step = gaussian_event(2.5, sample_rate=0.01)

    charged = accounting.renyi(self_composed(step, 50), [5, 50, 100])
    by_hand = [50 * divergence(step, order) for order in (5, 50, 100)]

    wanted = [2.18075656e-03, 2.38460375e-02, 1.67416308e02]
    assert charged == pytest.approx(wanted, rel=1e-4)
    assert by_hand == pytest.approx(wanted, rel=1e-4)
    plain = (Leaf(4.530877117, 1.0, 1),)
    assert bounds.renyi_epsilon(plain, 1e-6, None) == pytest.approx(1, abs=1e-3)


def test_replace_one_costs_more_than_add_or_remove_one() -> None:
    """The figure that others print; ours are add/remove and say so."""
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    step = dp_accounting.PoissonSampledDpEvent(
        0.0256, dp_accounting.GaussianDpEvent(1.0)
    )
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE, 1e-3)
    accountant.compose(dp_accounting.SelfComposedDpEvent(step, 500))

    assert accountant.get_epsilon(1e-5) == pytest.approx(5.569, abs=1e-3)


def test_two_queries_on_one_draw_are_one_event() -> None:
    together = gaussian_event(joint_noise_multiplier([1.0, 1.0]), sample_rate=0.01)
    apart = gaussian_event(1.0, sample_rate=0.01)

    cost = accounting.epsilon([(together, 500)], 1e-6)
    too_little = accounting.epsilon([(apart, 1000)], 1e-6)

    assert cost == pytest.approx(4.22, abs=0.01)
    assert too_little == pytest.approx(2.12, abs=0.01)


@pytest.mark.parametrize(
    ("noise", "num_steps", "delta"),
    [(5.0, 18, 1e-5), (0.7, 1, 1e-6), (40.0, 900, 1e-9)],
)
def test_of_a_plain_gaussian_the_third_accountant_knows_the_closed_form(
    noise: float, num_steps: int, delta: float
) -> None:
    found = prv.epsilon((Leaf(noise, 1.0, num_steps),), delta, 1e-3)
    exact = exact_gaussian(math.sqrt(num_steps) / noise, delta)

    assert found is not None
    assert found.lower <= exact <= found.upper
    assert found.estimate == pytest.approx(exact, abs=2e-4)


@pytest.mark.parametrize(
    "leaves",
    [
        (Leaf(0.8, 0.01, 550),),
        (Leaf(0.6, 0.2, 9),),
        (Leaf(3.0, 0.5, 300), Leaf(1.0, 0.01, 100)),
        (Leaf(1.5, 1.0, 3), Leaf(0.9, 0.05, 40)),
    ],
)
def test_the_tight_figure_lies_within_the_bounds_of_the_third(
    leaves: tuple[Leaf, ...],
) -> None:
    tight = bounds.pld_epsilon(leaves, 1e-6, 1e-4)

    found = prv.epsilon(leaves, 1e-6, max(1e-4, min(0.01, tight / 50)))

    assert found is not None
    assert found.lower <= tight <= found.upper
    assert tight == pytest.approx(found.estimate, rel=0.01, abs=2e-4)


def test_evidence_names_all_three_and_their_versions() -> None:
    event = self_composed(gaussian_event(0.8, sample_rate=0.01), 25)

    found = accounting.evidence(event, 22, 1e-6)

    assert found is not None
    assert found["pld"] < found["prv"] < found["rdp"]
    assert found["delta"] == 1e-6
    assert set(found["versions"]) == {"dp-accounting", "scipy"}
    assert accounting.evidence(unprotected_event(), 3, 1e-6) is None


def test_a_very_small_epsilon_is_no_contradiction() -> None:
    quiet = self_composed(gaussian_event(20.0, sample_rate=0.001), 5_000)

    found = accounting.evidence(quiet, 1, 1e-6)

    assert found is not None
    assert found["pld"] < found["rdp"]


def test_what_takes_the_third_too_long_is_left_out() -> None:
    long = self_composed(gaussian_event(500.0, sample_rate=0.5), 1_000_000)

    assert prv.epsilon((Leaf(500.0, 0.5, 1_000_000),), 1e-6, 1e-4) is None
    found = accounting.evidence(long, 1, 1e-6)
    assert found is not None
    assert found["pld"] < found["rdp"]


@pytest.mark.parametrize("factor", [0.9, 1.3])
def test_two_accountants_that_contradict_each_other_stop_the_study(
    monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    true = bounds.epsilon
    monkeypatch.setattr(bounds, "epsilon", lambda *a, **n: factor * true(*a, **n))

    with pytest.raises(PlanError) as caught:
        accounting.evidence(gaussian_event(0.9, sample_rate=0.03), 40, 1e-6)

    assert caught.value.error_id == "GLD-P004"


def divergence(event: Event, order: int) -> float:
    """Of one step at an integer order: Mironov, Talwar and Zhang 2019, section 3.3."""
    (((noise, rate, num_steps, _),),) = merge([(event, 1)]) or ()
    terms = [
        math.log(math.comb(order, k))
        + (order - k) * (math.log1p(-rate) if rate < 1 else 0.0)
        + k * math.log(rate)
        + k * (k - 1) / (2 * noise**2)
        for k in range(order + 1)
        if rate < 1 or k == order
    ]
    largest = max(terms)
    moment = largest + math.log(math.fsum(math.exp(t - largest) for t in terms))
    return num_steps * moment / (order - 1)


def admitted(event: Event, epsilon: float, num_turns: int) -> int:
    """How many equal studies a budget (3, 1e-5) holds, study delta 1e-6."""
    by_sum = min(int(3 / epsilon + 1e-9), 5)  # half of 1e-5 over 1e-6
    orders, by_order = (6, 8, 10, 12, 16, 24, 32, 64), [by_sum]

    def room(order: int, delta: float) -> float:
        log_delta = math.log(0.99 * delta)
        rest = (log_delta + math.log(order)) / (order - 1) - math.log1p(-1 / order)
        return 0.99 * 3 + rest

    kept = [a for a in orders if room(a, 1e-5 / 16) > 0]
    for a in kept:
        cost = num_turns * divergence(event, a)
        by_order.append(int(room(a, 5e-6 / len(kept)) / cost))
    return max(by_order)


@pytest.mark.parametrize(
    ("event", "epsilon", "num_turns"),
    [
        (gaussian_event(0.5), 1.0, 4),
        (gaussian_event(30.0), 0.9, 18),
        (self_composed(gaussian_event(1.1, sample_rate=0.01), 25), 0.6, 8),
        (gaussian_event(60.0, sample_rate=0.3), 0.1, 40),
    ],
)
def test_a_budget_admits_as_many_studies_as_a_calculation_by_hand(
    event: Event, epsilon: float, num_turns: int
) -> None:
    officer = Officer(SigningKey.generate(), site="a")
    orders = [
        officer.budget("people", 3.0, 1e-5, ["d"]),
        officer.rule("any", recipes=["r"], largest_epsilon=9, largest_delta=1e-5),
    ]
    expected = admitted(event, epsilon, num_turns)

    with Ledger.open(
        None, SigningKey.generate(), site="a", officer=officer.public_hex, orders=orders
    ) as ledger:
        from guilder_shared.errors import BudgetSpent

        def reserve(number: int) -> None:
            ledger.reserve(
                run_id=str(number),
                server="s",
                study_digest="d" * 64,
                study_name="s",
                dataset="d",
                recipe="r",
                unit="record",
                cohort=2,
                study_epsilon=epsilon,
                study_delta=1e-6,
                turn_event=event,
                num_turns=num_turns,
                meta={},
            )

        for number in range(expected):
            reserve(number)
        with pytest.raises(BudgetSpent):
            reserve(expected)


def test_a_study_is_accepted_with_the_evidence_in_its_entry(
    study_of: Callable[..., Study],
) -> None:
    study = study_of()
    plan = accounting.solve(study)
    event = accounting.turn_event(study, plan)

    found = accounting.evidence(event, plan.num_turns, study.privacy.delta)

    assert found is not None
    assert found["pld"] <= study.privacy.epsilon
    assert found["prv"] == pytest.approx(found["pld"], rel=0.01, abs=0.02)
