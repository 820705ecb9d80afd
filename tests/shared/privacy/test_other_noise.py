"""Laplace and discrete Gaussian noise: drawn exactly, and counted by three methods."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats  # type: ignore[import-untyped]  # no stubs

from guilder_shared.errors import PlanError
from guilder_shared.privacy import accounting, bounds, prv
from guilder_shared.privacy.events import (
    DISCRETE,
    LAPLACE,
    Event,
    Leaf,
    discrete_gaussian_event,
    gaussian_event,
    laplace_event,
    self_composed,
)
from guilder_shared.privacy.exact import Coins, noised
from guilder_verifier import events as second

KEY = bytes(range(32))
ORDERS = (6, 8, 10, 12, 16, 24, 32, 64)
NUM = 5_000
FALSE_ALARM = 1e-6
MECHANISMS: dict[str, Event] = {
    "laplace": laplace_event(2.0),
    "discrete": discrete_gaussian_event(1.7),
    "both": {"event": "parallel", "of": [laplace_event(2.0), gaussian_event(3.0)]},
}


def law(kind: str, noise: float, whole: int) -> float:
    """The chance of a whole number, from the mechanism's own definition."""
    if kind == LAPLACE:
        place = stats.laplace(scale=noise)
        return float(place.cdf(whole + 0.5) - place.cdf(whole - 0.5))
    weights = [math.exp(-(k**2) / (2 * noise**2)) for k in range(-200, 201)]
    return math.exp(-(whole**2) / (2 * noise**2)) / sum(weights)


@pytest.mark.parametrize("kind", [LAPLACE, DISCRETE])
@pytest.mark.parametrize("noise", [0.4, 1.5, 6.25])
def test_what_is_drawn_has_the_law_that_is_accounted(kind: str, noise: float) -> None:
    drawn = noised(np.zeros(NUM, dtype=np.int64), kind, noise, KEY)

    inner = [k for k in range(-100, 101) if NUM * law(kind, noise, k) >= 10]
    expected = [NUM * law(kind, noise, k) for k in inner]
    seen = [int((drawn == k).sum()) for k in inner]
    seen.append(NUM - sum(seen))
    expected.append(NUM - sum(expected))
    square = sum((s - e) ** 2 / e for s, e in zip(seen, expected, strict=True))
    assert square <= stats.chi2(len(seen) - 1).isf(FALSE_ALARM)


def test_coins_are_exact_for_awkward_fractions() -> None:
    coins, third, wide = Coins(KEY), Fraction(1, 3), Fraction(1, 2**70 + 1)
    flips = sum(coins.chance(third) for _ in range(NUM))
    powers = sum(coins.chance_exp(Fraction(5, 2)) for _ in range(NUM))

    for seen, chance in ((flips, 1 / 3), (powers, math.exp(-2.5))):
        assert stats.binomtest(seen, NUM, chance).pvalue > FALSE_ALARM
    assert not any(coins.chance(wide) for _ in range(100))
    assert 0 <= coins.below(2**64) < 2**64
    assert coins.below(1) == 0


def test_the_same_key_gives_the_same_noise_and_another_another() -> None:
    counts = np.arange(50)

    first = noised(counts, DISCRETE, 3.0, KEY)

    assert np.array_equal(first, noised(counts, DISCRETE, 3.0, KEY))
    assert not np.array_equal(first, noised(counts, DISCRETE, 3.0, KEY[::-1]))


@pytest.mark.parametrize("order", ORDERS)
def test_the_renyi_bounds_are_those_of_numerical_integration(order: int) -> None:
    """By definition: log of the integral of p^a q^(1 - a), over a - 1."""
    scale, sigma = 2.0, 1.7

    def moment(x: float) -> float:
        log_p, log_q = -abs(x) / scale, -abs(x - 1) / scale
        return math.exp(order * log_p + (1 - order) * log_q) / (2 * scale)

    parts = [(-80.0, 0.0), (0.0, 1.0), (1.0, 80.0)]
    whole = sum(integrate.quad(moment, *ends, epsabs=1e-13)[0] for ends in parts)
    ks = np.arange(-400, 401)
    p, q = -(ks**2) / (2 * sigma**2), -((ks - 1) ** 2) / (2 * sigma**2)
    total = np.logaddexp.reduce(order * p + (1 - order) * q) - np.logaddexp.reduce(p)
    wanted = {"laplace": math.log(whole) / (order - 1), "discrete": total / (order - 1)}

    for name, divergence in wanted.items():
        event = MECHANISMS[name]
        (charged,) = accounting.renyi(event, [order])
        assert charged == pytest.approx(divergence, rel=1e-6)
        assert second.cost(event)[order] == pytest.approx(divergence, rel=1e-6)


@pytest.mark.parametrize("delta", [1e-3, 1e-6])
@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("name", ["laplace", "discrete"])
def test_three_accountants_agree_on_it(name: str, count: int, delta: float) -> None:
    told = accounting.evidence(self_composed(MECHANISMS[name], count), 1, delta)

    assert told is not None
    assert told["prv"] == pytest.approx(told["pld"], rel=0.03, abs=0.02)
    assert told["pld"] <= told["rdp"] + 1e-3  # one lies on a grid


def test_one_laplace_count_costs_its_epsilon_and_no_more() -> None:
    assert accounting.epsilon([(laplace_event(2.0), 1)], 1e-9) == pytest.approx(
        0.5, abs=2e-3
    )
    assert accounting.epsilon([(laplace_event(2.0), 4)], 1e-9) <= 2.001


def test_its_delta_is_the_hockey_stick_of_its_definition() -> None:
    """One discrete Gaussian count, summed up by hand at an epsilon."""
    sigma, epsilon = 1.7, 1.0
    ks = np.arange(-200, 201)
    q = np.exp(-(ks**2) / (2 * sigma**2))
    p = np.exp(-((ks - 1) ** 2) / (2 * sigma**2))
    delta = float(np.maximum(p - math.exp(epsilon) * q, 0).sum() / p.sum())
    leaf = Leaf(sigma, 1.0, 1, DISCRETE)

    assert bounds.pld_epsilon((leaf,), delta, 1e-4) == pytest.approx(epsilon, abs=2e-3)
    found = prv.epsilon((leaf,), delta, 1e-3)
    assert found is not None
    assert found.lower <= epsilon <= found.upper


@pytest.mark.parametrize(
    "event",
    [
        {"event": "geometric", "noise_multiplier": 1.0},
        {"event": "laplace", "noise_multiplier": 0.01},
        {"event": "discrete-gaussian", "noise_multiplier": 1.0, "sensitivity": 2},
    ],
)
def test_an_event_without_two_accountants_is_refused(event: Any) -> None:
    for ask in (
        lambda: accounting.epsilon([(event, 1)], 1e-6),
        lambda: accounting.renyi(event, ORDERS),
        lambda: accounting.evidence(event, 3, 1e-6),
    ):
        with pytest.raises(PlanError) as caught:
            ask()
        assert caught.value.error_id == "GLD-P003"
