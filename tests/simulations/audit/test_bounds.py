"""From right guesses to epsilon: never too much for a mechanism that is known."""

import math

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]  # no stubs

from guilder_simulations.audit import bounds
from guilder_simulations.audit.bounds import Guesses
from guilder_simulations.audit.curves import TradeOff, of_schedule

NUM = 60


def gaussian(mu: float) -> TradeOff:
    """Of one Gaussian with mean `mu`, by its exact profile (Balle and Wang 2018)."""
    grid = np.linspace(0, 12, 600)
    deltas = stats.norm.cdf(mu / 2 - grid / mu)
    deltas = deltas - np.exp(grid) * stats.norm.cdf(-mu / 2 - grid / mu)
    return TradeOff(grid, deltas)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_randomised_response_is_never_contradicted_more_often_than_is_said(
    epsilon: float,
) -> None:
    """Each answer is right with chance e^eps / (1 + e^eps), by itself: exact tails."""
    curve = TradeOff(np.array([epsilon]), np.array([0.0]))
    sure = 1 / (1 + math.exp(-epsilon))

    for right in range(1, NUM + 1):
        tail = float(stats.binom.sf(right - 1, NUM, sure))
        assert not bounds.contradicts(NUM, NUM, right, curve, tail * (1 - 1e-9))


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.0])
def test_a_gaussian_is_never_contradicted_more_often_than_is_said(mu: float) -> None:
    curve, sure = gaussian(mu), float(stats.norm.cdf(mu / 2))

    for right in range(1, NUM + 1):
        tail = float(stats.binom.sf(right - 1, NUM, sure))
        assert not bounds.contradicts(NUM, NUM, right, curve, tail * (1 - 1e-9))


def test_many_right_guesses_contradict_a_small_epsilon() -> None:
    curve = TradeOff(np.array([1.0]), np.array([0.0]))

    assert bounds.contradicts(1000, 1000, 900, curve, 0.05)
    assert not bounds.contradicts(1000, 1000, 740, curve, 0.05)


@pytest.mark.parametrize("mu", [1.0, 2.0])
def test_with_many_canaries_more_than_half_of_a_gaussian_is_found(mu: float) -> None:
    """Measured for this attack: 0.6 of the truth is contradicted, not the truth."""
    rng = np.random.default_rng(5)
    coins = rng.integers(0, 2, 10_000).astype(np.bool_)
    guesses = bounds.guess(mu * coins + rng.standard_normal(len(coins)), coins)

    assert bounds.any_contradicts(len(coins), guesses, gaussian(0.6 * mu), 0.05)
    assert not bounds.any_contradicts(len(coins), guesses, gaussian(mu), 0.05)


def test_one_run_agrees_with_the_closed_form_where_all_guesses_are_right() -> None:
    """With delta 0, all r right: sure^r = error, so epsilon = logit(error^(1 / r))."""
    sure = 0.05 ** (1 / 100)

    found = bounds.one_run(100, [Guesses(100, 100)], delta=0.0, error=0.05)

    assert found == pytest.approx(math.log(sure / (1 - sure)), abs=2e-3)


def test_delta_takes_from_the_one_run_bound() -> None:
    plain = bounds.one_run(1000, [Guesses(1000, 800)], delta=0.0, error=0.05)
    less = bounds.one_run(1000, [Guesses(1000, 800)], delta=1e-4, error=0.05)

    assert 0 < less < plain < math.log(4)


def test_coins_that_were_guessed_by_chance_show_nothing() -> None:
    assert bounds.one_run(1000, [Guesses(1000, 500)], delta=1e-6, error=0.05) == 0.0


def test_guesses_are_the_highest_in_and_the_lowest_out() -> None:
    scores = np.arange(100, dtype=np.float64)
    included = scores >= 40  # ten of the lower half are in

    found = bounds.guess(scores, included)

    assert found[0] == (100, 90)
    assert found[1] == (50, 50)
    assert [each.made for each in found] == [100, 50, 24, 12, 6, 2]


def test_a_schedule_s_curve_is_the_gaussian_s_where_all_are_drawn() -> None:
    """Four full-batch steps with noise 2 are one Gaussian with mean 1."""
    curve, exact = of_schedule(4, 1.0, 2.0), gaussian(1.0)

    for power in (0.01, 0.1, 0.5, 0.9, 0.99):
        found = curve.least(power)
        assert found == pytest.approx(exact.least(power), abs=2e-3)
        assert found <= stats.norm.cdf(stats.norm.ppf(power) - 1.0) + 1e-12
