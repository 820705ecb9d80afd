"""A clip norm that follows: two answers on one draw are one event, and C is bounded."""

import math

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]  # no stubs

from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.adaptive import MOST, MovingClip, halves
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study.learning import AdaptiveClip

KEY = bytes(range(32))
KEYS = TurnKeys.seeded(4, site="site-1", round_no=1)


def clip(start: float = 0.5, **changes: float) -> MovingClip:
    how = {n: changes[n] for n in ("quantile", "rate", "share") if n in changes}
    planned, divisor = changes.get("planned", 0.0), changes.get("divisor", 100.0)
    return MovingClip(start, AdaptiveClip(**how), planned=planned, divisor=divisor)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("planned", [0.3, 1.0, 40.0])
def test_both_answers_together_cost_what_the_plan_says(
    planned: float, share: float
) -> None:
    moving = clip(share=share, planned=planned)

    ratios = (1 / moving.noise_multiplier, 0.5 / moving.count_std)

    assert 1 / math.hypot(*ratios) == pytest.approx(planned, rel=1e-12)
    # the source's words: z_sum = (z^-2 - (2 z_count)^-2)^(-1/2)
    z_sum = (planned**-2 - (2 * moving.count_std) ** -2) ** -0.5
    assert moving.noise_multiplier == pytest.approx(z_sum, rel=1e-9)
    # and with the slack of the sum's sensitivity, no more than the event says
    slack = 1 + SENSITIVITY_SLACK
    assert math.hypot(slack * ratios[0], ratios[1]) <= slack / planned


def unclipped(moving: MovingClip, norms: np.ndarray) -> float:
    fits = norms <= moving.clip_norm
    return float(fits.sum() - (~fits).sum()) / 2


@pytest.mark.parametrize("planned", [0.0, 1.0])
@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("start", [0.05, 20.0])
def test_the_clip_norm_goes_to_the_quantile(
    quantile: float, start: float, planned: float
) -> None:
    rng = np.random.default_rng(1)
    norms = rng.lognormal(size=500)
    moving = clip(start, quantile=quantile, divisor=500, planned=planned)

    for step in range(300):
        moving.learn(unclipped(moving, norms), KEYS.key("count", step))

    wanted = np.quantile(norms, [quantile - 0.05, quantile + 0.05])
    assert wanted[0] < moving.clip_norm < wanted[1]


@pytest.mark.parametrize("number", [1e12, -1e12])
def test_no_count_moves_the_clip_norm_beyond_its_bounds(number: float) -> None:
    moving = clip(0.5)

    for _ in range(500):
        moving.learn(number, KEY)
        assert 0.5 / MOST <= moving.clip_norm <= 0.5 * MOST

    assert moving.clip_norm in (0.5 / MOST, 0.5 * MOST)


def test_one_count_moves_it_by_the_rate_at_most() -> None:
    up, down = clip(1.0, quantile=0.3), clip(1.0, quantile=0.3)

    up.learn(-1e9, KEY)
    down.learn(1e9, KEY)

    assert up.clip_norm == pytest.approx(math.exp(0.2 * 0.3))
    assert down.clip_norm == pytest.approx(math.exp(-0.2 * 0.7))


def test_the_count_is_noised_as_accounted() -> None:
    """By what it moves: log C is a linear function of the noised count."""
    spread = []
    for step in range(4000):
        moving = clip(1.0, divisor=1000, planned=1.0)
        moving.learn(0.0, KEYS.key("count", step))
        spread.append(-math.log(moving.clip_norm) / 0.2 * 1000)

    std = clip(planned=1.0).count_std
    z = float(stats.norm.isf(0.5e-6))
    found = float(np.var(spread))
    assert abs(found / std**2 - 1) < z * math.sqrt(2 / 4000)
    assert abs(float(np.mean(spread))) < z * std / math.sqrt(4000)


def test_a_unit_that_is_not_finite_is_neither() -> None:
    assert halves(np.array([1.0, 1.0, 0.0, 0.3, 1.0])) == 1.0
    assert halves(np.array([])) == 0.0


@pytest.mark.parametrize(("start", "divisor"), [(0.0, 1.0), (math.inf, 1.0), (1, 0)])
def test_a_start_or_divisor_that_is_none_is_refused(
    start: float, divisor: float
) -> None:
    with pytest.raises(ValueError, match="positive"):
        clip(start, divisor=divisor)
