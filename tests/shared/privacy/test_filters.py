"""The filters admit exactly what their proofs cover."""

import math

import pytest

from guilder_shared.privacy.ledger.filters import (
    ARITHMETIC,
    GRAIN,
    NOTHING,
    ORDERS,
    Cost,
    Filters,
    capacity,
)

QUIET = [0.0] * len(ORDERS)
LOUD = [1e5] * len(ORDERS)  # no Rényi filter has room for this


def cost(epsilon: float, delta: float, renyi: list[float] = LOUD) -> Cost:
    return Cost.of(epsilon, delta, renyi, num_steps=1, num_turns=1)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 7.7])
@pytest.mark.parametrize("delta", [1e-6, 1.1e-7, 0.3e-5])
def test_a_budget_admits_one_study_of_its_own_epsilon_and_half_its_delta(
    epsilon: float, delta: float
) -> None:
    filters = Filters.fix(epsilon, 2 * delta)

    assert filters.have_room(cost(epsilon, delta))
    assert not filters.have_room(cost(epsilon * 1.0001, delta))
    assert not filters.have_room(cost(epsilon, delta * 1.0001))


def test_three_tenths_fit_in_three_tenths() -> None:
    total = cost(0.1, 1e-7) + cost(0.1, 1e-7) + cost(0.1, 1e-7)

    assert 0.1 + 0.1 + 0.1 > 0.3  # as floats they do not
    assert Filters.fix(0.3, 1e-6).have_room(total)


def test_a_renyi_filter_at_capacity_means_the_budgets_guarantee() -> None:
    order, epsilon, delta = 16, 3.0, 1e-6

    divergence = capacity(order, epsilon, delta)

    # Canonne et al. 2020, proposition 12, forwards.
    share = delta * (1 - ARITHMETIC)
    converted = (
        divergence
        + math.log((order - 1) / order)
        - (math.log(share) + math.log(order)) / (order - 1)
    )
    assert converted == pytest.approx(epsilon * (1 - ARITHMETIC))


def test_many_quiet_studies_fit_a_renyi_filter_though_their_sum_does_not() -> None:
    filters = Filters.fix(3.0, 1e-5)
    quiet = cost(0.5, 1e-7, [order * 1e-3 for order in ORDERS])
    total = NOTHING

    for _ in range(20):
        total += quiet

    assert float(total.epsilon) > 3
    assert filters.have_room(total)


def test_orders_without_capacity_are_dropped_and_their_delta_is_shared_out() -> None:
    filters = Filters.fix(0.5, 1e-6)

    kept = [one.order for one in filters.renyi]

    assert 0 < len(kept) < len(ORDERS)
    assert kept == [a for a in ORDERS if capacity(a, 0.5, 1e-6 / 16) > 0]
    assert sum(one.delta for one in filters.renyi) == pytest.approx(1e-6 / 2)


def test_the_deltas_of_all_filters_never_exceed_the_budgets() -> None:
    for epsilon in (0.01, 0.3, 1.0, 10.0, 100.0):
        filters = Filters.fix(epsilon, 1e-5)

        spent = float(filters.delta) + sum(one.delta for one in filters.renyi)

        assert spent <= 1e-5 * (1 + 1e-12)


def test_steps_beyond_what_the_arithmetic_was_given_close_the_renyi_filters() -> None:
    filters = Filters.fix(1.0, 1e-6)
    over_the_sum = Cost.of(2.0, 1e-7, QUIET, num_steps=1, num_turns=1)
    far_too_long = Cost.of(2.0, 1e-7, QUIET, num_steps=10**9, num_turns=1)

    assert filters.have_room(over_the_sum)
    assert not filters.have_room(far_too_long)


def test_a_study_without_a_turn_costs_nothing() -> None:
    assert Cost.of(3.0, 1e-6, LOUD, num_steps=25, num_turns=0) == NOTHING


def test_an_infinite_divergence_fills_a_filter_and_can_be_taken_back() -> None:
    endless = cost(1.0, 1e-7, [math.inf, math.nan, *LOUD[2:]])

    assert not Filters.fix(0.5, 1e-6).have_room(endless)
    assert endless - endless == NOTHING


def test_a_study_given_back_takes_no_other_studys_cost_along() -> None:
    quiet = cost(0.1, 1e-9, [7e-6] * len(ORDERS))
    loud = Cost.of(0.1, 1e-9, LOUD, num_steps=1, num_turns=10**6)
    total = NOTHING

    for _ in range(100):  # a server submits both, and closes the second unspent
        total = total + quiet + loud - loud

    assert all(units >= 100 * 7e-6 / GRAIN for units in total.renyi)


def test_costs_are_rounded_up_and_never_down() -> None:
    tiny = cost(0.1, 1e-9, [1e-30] * len(ORDERS))

    assert tiny.renyi == (1,) * len(ORDERS)
