"""The average over rounds: of models that left already, and right from the start."""

import numpy as np
import pytest

from guilder_shared.messages import Weights
from guilder_shared.training.average import average


def models(rounds: int) -> list[Weights]:
    rng = np.random.default_rng(1)
    return [
        {
            "w": rng.normal(size=(3, 2)).astype(np.float32),
            "b": np.array([k], np.float32),
        }
        for k in range(rounds)
    ]


def over(found: list[Weights], decay: float) -> Weights:
    now: Weights = {}
    for round_no, model in enumerate(found, 1):
        now = average(now, model, round_no, decay)
    return now


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_a_round_counts_by_its_age(decay: float) -> None:
    found = models(12)
    weights = decay ** np.arange(11, -1, -1.0)
    weights /= weights.sum()

    now = over(found, decay)

    for name in ("w", "b"):
        expected = sum(
            share * model[name].astype(np.float64)
            for share, model in zip(weights, found, strict=True)
        )
        assert now[name] == pytest.approx(expected, abs=1e-6)
        assert now[name].dtype == np.float32


def test_a_decay_near_one_is_the_mean_of_all_rounds() -> None:
    found = models(9)

    now = over(found, 1 - 1e-12)

    mean = np.mean([m["w"] for m in found], axis=0)
    assert now["w"] == pytest.approx(mean, abs=1e-5)


def test_after_one_round_it_is_the_model() -> None:
    (only,) = models(1)

    assert np.array_equal(over([only], 0.9)["w"], only["w"])


def test_averaging_leaves_less_noise() -> None:
    rng = np.random.default_rng(2)
    noisy = [{"w": rng.normal(size=4000).astype(np.float32)} for _ in range(60)]

    now = over(noisy, 0.9)

    # sum of squared weights (1 - d) / (1 + d) = 0.0526
    assert float(now["w"].var()) == pytest.approx(0.1 / 1.9, rel=0.15)
