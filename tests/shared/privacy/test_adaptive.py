"""A clip norm that follows: two answers on one draw are one event, and C is bounded."""

import math

import numpy as np
import pytest

from guilder_shared.privacy.adaptive import MOST, MovingClip
from guilder_shared.study.learning import AdaptiveClip


def clip(
    start: float = 0.5,
    *,
    quantile: float = 0.5,
    rate: float = 0.2,
    share: float = 0.02,
    divisor: float = 100.0,
) -> MovingClip:
    study = AdaptiveClip(quantile=quantile, rate=rate, share=share)
    return MovingClip(start, study, divisor=divisor)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("planned", [0.3, 1.0, 40.0])
def test_both_answers_together_cost_what_the_plan_says(
    planned: float, share: float
) -> None:
    moving = clip(share=share)

    sum_std = moving.noise_multiplier(planned) * moving.clip_norm
    count_std = sum_std / moving.count_scale

    sensitivities = ((moving.clip_norm, sum_std), (0.5, count_std))
    together = math.sqrt(sum((s / std) ** 2 for s, std in sensitivities))
    assert 1 / together == pytest.approx(planned, rel=1e-12)
    # the source's words: z_sum = (z^-2 - (2 z_count)^-2)^(-1/2)
    z_sum = (planned**-2 - (2 * count_std) ** -2) ** -0.5
    assert moving.noise_multiplier(planned) == pytest.approx(z_sum, rel=1e-9)


def released(moving: MovingClip, norms: np.ndarray) -> float:
    """The count's number without noise."""
    fits = norms <= moving.clip_norm
    return float(moving.count_scale * (fits.sum() - (~fits).sum()) / 2)


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("start", [0.05, 20.0])
def test_the_clip_norm_goes_to_the_quantile(quantile: float, start: float) -> None:
    rng = np.random.default_rng(1)
    norms = rng.lognormal(size=500)
    moving = clip(start, quantile=quantile, divisor=500)

    for _ in range(300):
        moving.learn(released(moving, norms))

    assert moving.clip_norm == pytest.approx(np.quantile(norms, quantile), rel=0.1)


@pytest.mark.parametrize("number", [math.inf, -math.inf, 1e300, -1e300])
def test_no_release_moves_the_clip_norm_beyond_its_bounds(number: float) -> None:
    moving = clip(0.5)

    for _ in range(500):
        moving.learn(number)
        assert 0.5 / MOST <= moving.clip_norm <= 0.5 * MOST

    assert moving.clip_norm in (0.5 / MOST, 0.5 * MOST)


def test_one_release_moves_it_by_the_rate_at_most() -> None:
    up, down = clip(1.0, quantile=0.3), clip(1.0, quantile=0.3)

    up.learn(-1e9)
    down.learn(1e9)

    assert up.clip_norm == pytest.approx(math.exp(0.2 * 0.3))
    assert down.clip_norm == pytest.approx(math.exp(-0.2 * 0.7))


@pytest.mark.parametrize(("start", "divisor"), [(0.0, 1.0), (math.inf, 1.0), (1, 0)])
def test_a_start_or_divisor_that_is_none_is_refused(
    start: float, divisor: float
) -> None:
    with pytest.raises(ValueError, match="positive"):
        clip(start, divisor=divisor)
