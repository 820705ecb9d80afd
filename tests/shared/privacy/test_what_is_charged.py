"""What a turn does is what its event says, and what a filter admits it may admit."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm  # type: ignore[import-untyped]  # no stubs

from guilder_shared.models import registry
from guilder_shared.privacy import accounting, noise
from guilder_shared.privacy.ahead import NoiseAhead, Order
from guilder_shared.privacy.events import merge
from guilder_shared.privacy.ledger.filters import ORDERS, Filters
from guilder_shared.privacy.sampling import TurnKeys, poisson
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.fit import fit

Make = Callable[..., Study]
DRAWN = "guilder_shared.training.draws.poisson"


@pytest.mark.parametrize("rate", [1.0, 0.05])
@pytest.mark.parametrize("num_rows", [0, 300])
def test_every_step_that_runs_is_charged_with_the_noise_it_had(
    study_of: Make, monkeypatch: pytest.MonkeyPatch, rate: float, num_rows: int
) -> None:
    study = study_of(sample_rate=rate, local_steps=7)
    plan = accounting.solve(study)
    rng = np.random.default_rng(1)
    rows = Examples(
        rng.uniform(-1, 1, (num_rows, 3)).astype(np.float32),
        np.ones(num_rows, np.float32),
    )
    released: list[tuple[float, bytes]] = []
    grids: set[float] = set()
    rates: list[float] = []
    take, add = NoiseAhead.take, noise.round_sum

    def noised(ahead: NoiseAhead, order: Order, **named: Any) -> Any:
        released.append((order.std, order.key))
        found = take(ahead, order, **named)
        alone = noise.draw(order.num, order.std, order.key, noise.grid_for(order.std))
        assert np.array_equal(found, alone)
        return found

    def rounded(total: Any, drawn: Any, grid: float, out: Any) -> None:
        grids.add(grid)
        add(total, drawn, grid, out)

    def drawn(num: int, sample_rate: float, key: bytes) -> Any:
        rates.append(sample_rate)
        return poisson(num, sample_rate, key)

    monkeypatch.setattr(NoiseAhead, "take", noised)
    monkeypatch.setattr(noise, "round_sum", rounded)
    monkeypatch.setattr(DRAWN, drawn)
    for _ in range(plan.num_turns):
        fit(
            registry.initial(study),
            study,
            plan,
            rows,
            public_size=100,
            keys=TurnKeys.from_os(),
        )

    ((leaf,),) = merge([(accounting.schedule_event(study, plan), 1)]) or ()
    (std,) = {std for std, _ in released}
    assert len(released) == len(rates) == leaf.num_steps
    assert set(rates) == {leaf.sample_rate}
    sensitivity = study.privacy.clip_norm * (1 + accounting.SENSITIVITY_SLACK)
    assert std / sensitivity == pytest.approx(leaf.noise_multiplier, rel=1e-12)
    assert grids == {noise.grid_for(std)}
    assert len({key for _, key in released}) == len(released)


def exact_delta(mu: float, epsilon: float) -> float:
    """Delta of Gaussians with total signal-to-noise ratio mu: Balle and Wang 2018."""
    upper = float(norm.cdf(mu / 2 - epsilon / mu))
    return upper - math.exp(epsilon + float(norm.logcdf(-mu / 2 - epsilon / mu)))


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 6.0, 10.0])
@pytest.mark.parametrize("delta", [1e-4, 1e-5, 1e-8])
def test_gaussians_that_fill_a_renyi_filter_keep_its_share_of_the_budget(
    epsilon: float, delta: float
) -> None:
    """An independent check: the exact law of the worst case, not the conversion."""
    filters = Filters.fix(epsilon, delta)

    assert filters.renyi
    for one in filters.renyi:
        mu = math.sqrt(2 * one.capacity / one.order)  # order x mu^2 / 2 = capacity
        assert exact_delta(mu, epsilon) <= one.delta


def test_all_filters_filled_together_keep_the_budget() -> None:
    """The union bound, on the worst event of each filter at once."""
    epsilon, delta = 3.0, 1e-5
    filters = Filters.fix(epsilon, delta)

    worst = float(filters.delta) + sum(
        exact_delta(math.sqrt(2 * one.capacity / one.order), epsilon)
        for one in filters.renyi
    )

    assert worst <= delta


def test_the_divergence_charged_bounds_that_of_removal_and_of_addition() -> None:
    """By numbers: both directions of a sampled Gaussian, on a fine grid."""
    sigma, rate = 0.9, 0.02
    x = np.linspace(-60, 60, 2_000_001)
    without = norm.logpdf(x, 0, sigma)
    within = np.logaddexp(
        math.log1p(-rate) + without, math.log(rate) + norm.logpdf(x, 1, sigma)
    )
    charged = accounting.renyi(
        {
            "event": "poisson-sampled",
            "sampling_probability": rate,
            "of": {"event": "gaussian", "noise_multiplier": sigma},
        },
        ORDERS,
    )

    for order, bound in zip(ORDERS, charged, strict=True):
        for p, q in ((within, without), (without, within)):
            logs = order * p + (1 - order) * q + math.log(x[1] - x[0])
            found = float(np.logaddexp.reduce(logs)) / (order - 1)
            assert found <= bound * (1 + 1e-6)
