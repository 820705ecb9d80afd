"""Bugs planted into the product's own code, each caught by the self-test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from guilder_shared.errors import PlanError
from guilder_shared.models import registry
from guilder_shared.privacy import isolation, noise, normals, sampling
from guilder_shared.privacy.bookkeeping import norms, passes, step
from guilder_shared.privacy.bookkeeping.step import PrivateStep
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tables import contract
from guilder_shared.training import draws, fit
from guilder_shared.training.draws import Draw, Sampler
from guilder_shared.training.selftest import Passed

Run = Callable[..., Passed]
Plant = Callable[[pytest.MonkeyPatch], None]
STUDIES = Path(__file__).parents[4] / "simulations" / "studies"


def noise_halved(plant: pytest.MonkeyPatch) -> None:
    in_grids = noise.in_grids
    plant.setattr(noise, "in_grids", lambda std, grid: in_grids(std, grid) / 2)


def noise_eight_per_cent_small(plant: pytest.MonkeyPatch) -> None:
    in_grids = noise.in_grids
    plant.setattr(noise, "in_grids", lambda std, grid: in_grids(std, grid) * 0.92)


def noise_cut_off(plant: pytest.MonkeyPatch) -> None:
    """As from 24 random bits for the radius."""
    fill = normals.Normals.fill

    def cut(self: Any, out: Any, scale: float = 1.0) -> None:
        fill(self, out, scale)
        np.clip(out, -5.8 * scale, 5.8 * scale, out=out)

    plant.setattr(normals.Normals, "fill", cut)


def noise_of_another_law(plant: pytest.MonkeyPatch) -> None:
    """Laplace's, with the right variance."""
    fill = normals.Normals.fill

    def laplace(self: Any, out: Any, scale: float = 1.0) -> None:
        fill(self, out, 1.0)
        rng = np.random.default_rng(abs(int(out[0] * 2**40)))
        out[:] = rng.laplace(0, scale / np.sqrt(2), len(out))

    plant.setattr(normals.Normals, "fill", laplace)


def noise_from_a_global_generator(plant: pytest.MonkeyPatch) -> None:
    def draw(_self: Any, out: Any, scale: float = 1.0) -> None:
        out[:] = torch.randn(len(out), dtype=torch.float64).numpy() * scale

    plant.setattr(normals.Normals, "fill", draw)


def noise_seeded(plant: pytest.MonkeyPatch) -> None:
    key = TurnKeys.key

    def fixed(self: TurnKeys, purpose: Any, step: int) -> bytes:
        fixed_root = TurnKeys(bytes(32))
        return key(fixed_root if purpose == "noise" else self, purpose, step)

    plant.setattr(TurnKeys, "key", fixed)


def noise_of_every_step_the_same(plant: pytest.MonkeyPatch) -> None:
    key = TurnKeys.key
    plant.setattr(
        TurnKeys,
        "key",
        lambda self, purpose, step: key(
            self, purpose, 0 if purpose == "noise" else step
        ),
    )


def not_rounded(plant: pytest.MonkeyPatch) -> None:
    def add(total: Any, drawn: Any, grid: float, out: Any) -> None:
        np.copyto(out, total + drawn * grid)

    plant.setattr(noise, "round_sum", add)


def clip_times_four(plant: pytest.MonkeyPatch) -> None:
    factors = norms.factors
    plant.setattr(
        passes,
        "factors",
        lambda square, limit, dtype: factors(square, 4 * limit, dtype),
    )


def one_per_cent_over_the_clip_norm(plant: pytest.MonkeyPatch) -> None:
    factors = norms.factors
    plant.setattr(
        passes,
        "factors",
        lambda square, limit, dtype: factors(square, 1.01 * limit, dtype),
    )


def not_finite_not_masked(plant: pytest.MonkeyPatch) -> None:
    def unmasked(square: Tensor, limit: float, _dtype: Any) -> Any:
        weights = (limit / square.sqrt()).clamp(max=1.0)
        return weights, torch.ones_like(square, dtype=torch.bool)

    plant.setattr(passes, "factors", unmasked)


def shuffled_instead_of_poisson(plant: pytest.MonkeyPatch) -> None:
    """Batches of one size, each unit equally often."""

    def fixed_size(num: int, rate: float, key: bytes) -> Any:
        rng = np.random.default_rng(int.from_bytes(key[:8], "big"))
        return np.sort(rng.permutation(num)[: round(rate * num)])

    plant.setattr(draws, "poisson", fixed_size)


def drawn_twice_as_often(plant: pytest.MonkeyPatch) -> None:
    poisson = sampling.poisson
    plant.setattr(
        draws,
        "poisson",
        lambda num, rate, key: poisson(num, min(1.0, 2 * rate), key),
    )


def first_unit_always_drawn(plant: pytest.MonkeyPatch) -> None:
    poisson = sampling.poisson
    plant.setattr(
        draws,
        "poisson",
        lambda num, *args: np.union1d(poisson(num, *args), np.arange(min(1, num))),
    )


def every_step_the_same_draw(plant: pytest.MonkeyPatch) -> None:
    key = TurnKeys.key
    plant.setattr(
        TurnKeys,
        "key",
        lambda self, purpose, step: key(
            self, purpose, 0 if purpose == "sampling" else step
        ),
    )


def all_or_none(plant: pytest.MonkeyPatch) -> None:
    """The right rate for each unit, one coin for all."""
    poisson = sampling.poisson
    plant.setattr(
        draws,
        "poisson",
        lambda num, rate, key: np.arange(num if len(poisson(1, rate, key)) else 0),
    )


def turn_goes_past_the_sampler(plant: pytest.MonkeyPatch) -> None:
    class Everybody(Sampler):
        def draw(self, _keys: Any, _step: int) -> Draw:
            return Draw(np.arange(self._num_rows))

    plant.setattr(fit, "Sampler", Everybody)


def divisor_from_the_rows(plant: pytest.MonkeyPatch) -> None:
    fetched = PrivateStep.fetched

    def divided(self: PrivateStep, rows: Tensor, *args: Any) -> None:
        self.divisor = max(1.0, float(len(rows)))
        fetched(self, rows, *args)

    plant.setattr(PrivateStep, "fetched", divided)


def empty_batch_skipped(plant: pytest.MonkeyPatch) -> None:
    fetched = PrivateStep.fetched

    def skipped(self: PrivateStep, rows: Tensor, *args: Any) -> None:
        if len(rows):
            fetched(self, rows, *args)

    plant.setattr(PrivateStep, "fetched", skipped)


class Mixed(nn.Module):
    """A model whose first layer takes a little of the batch's mean away."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x - 0.1 * x.mean(0))  # type: ignore[no-any-return]


def one_row_mixed_in_training_only(plant: pytest.MonkeyPatch) -> None:
    """And the engine's own trial, which would see it, is broken as well."""
    plant.setattr(isolation, "_is_isolated", lambda *_: True)
    plant.setattr(isolation, "_tried", {})
    make = step.make_private_step

    def mixed(module: nn.Module, *args: Any, **options: Any) -> PrivateStep:
        return make(Mixed(module), *args, **options)

    plant.setattr(fit, "make_private_step", mixed)


def rows_that_share_rounding(plant: pytest.MonkeyPatch) -> None:
    make = step.make_private_step

    def together(*args: Any, **options: Any) -> PrivateStep:
        return make(*args, **options | {"isolated": False})

    plant.setattr(fit, "make_private_step", together)


def prepared_by_the_other_rows(plant: pytest.MonkeyPatch) -> None:
    scaled = contract._scaled

    def standardised(values: Any, column: Any) -> Any:
        centre = np.nanmean(values) if len(values) else 0.0
        return scaled(values - centre, column)

    plant.setattr(contract, "_scaled", standardised)


PLANTED: list[tuple[Plant, str]] = [
    (noise_halved, "standard deviation is 0.5"),
    (noise_eight_per_cent_small, "standard deviation is 0.9"),
    (noise_cut_off, "cut off"),
    (noise_of_another_law, "beyond"),
    (noise_from_a_global_generator, "follows from a seed"),
    (noise_seeded, "follows from a seed"),
    (noise_of_every_step_the_same, "two steps have the same noise"),
    (not_rounded, "grid"),
    (clip_times_four, "moves the sum by 3.99"),
    (one_per_cent_over_the_clip_norm, "moves the sum by 1.009"),
    (not_finite_not_masked, "not finite"),
    (shuffled_instead_of_poisson, "do not vary"),
    (drawn_twice_as_often, "of the rate that is charged"),
    (first_unit_always_drawn, "one unit is drawn more"),
    (every_step_the_same_draw, "hangs on the one before"),
    (all_or_none, "do not vary"),
    (turn_goes_past_the_sampler, "accounted sampler"),
    (divisor_from_the_rows, "number of rows"),
    (empty_batch_skipped, "without rows released nothing"),
    (one_row_mixed_in_training_only, "hangs on the others"),
    (rows_that_share_rounding, "at hostile weights"),
    (prepared_by_the_other_rows, "preparing one row"),
]


@pytest.mark.parametrize(
    ("plant", "told"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED]
)
def test_a_planted_bug_is_caught_and_named(
    tested: Run, small: Study, monkeypatch: pytest.MonkeyPatch, plant: Plant, told: str
) -> None:
    plant(monkeypatch)

    with pytest.raises(PlanError) as caught:
        tested(small)

    assert caught.value.error_id == "GLD-P070"
    assert told in caught.value.why


def test_code_that_raises_refuses_the_study_too(
    tested: Run, small: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a number of a made-up row")

    monkeypatch.setattr(noise, "draw", broken)

    with pytest.raises(PlanError) as caught:
        tested(small)

    assert caught.value.error_id == "GLD-P070"
    assert "RuntimeError" in caught.value.why
    assert "made-up row" not in str(caught.value)


def test_a_batch_norm_in_the_study_s_model_is_caught_and_named(
    tested: Run, small: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = registry.build

    def normed(study: Study) -> nn.Module:
        model: Any = build(study)
        return model.append(nn.BatchNorm1d(1, affine=False))  # type: ignore[no-any-return]

    monkeypatch.setattr(registry, "build", normed)

    with pytest.raises(PlanError) as caught:
        tested(small)

    assert caught.value.error_id == "GLD-P071"
    assert "GLD-P020" in caught.value.why


def persons_shuffled(plant: pytest.MonkeyPatch) -> None:
    shuffled_instead_of_poisson(plant)
    shuffled: Any = vars(draws)["poisson"]
    plant.setattr(draws, "poisson_named", lambda n, *rest: shuffled(len(n), *rest))


KINDS = {
    "triage": ("model.hidden=[8]", "training.sample_rate=0.1"),
    "patient-scans": ("model.width=8", "training.local_steps=2"),
    "customer-intents-person": (
        "model.width=8",
        "data.max_tokens=8",
        "training.sample_rate=0.1",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (noise_halved, "standard deviation is 0.5"),
        (clip_times_four, "one unit moves the sum by"),
        (persons_shuffled, "do not vary"),
        (noise_seeded, "follows from a seed"),
        (divisor_from_the_rows, "number of rows"),
    ],
)
def test_it_is_caught_in_classes_images_and_texts_too(
    tested: Run, monkeypatch: pytest.MonkeyPatch, kind: str, plant: Plant, told: str
) -> None:
    study = Study.load(STUDIES / f"{kind}.toml", KINDS[kind])
    tested(study)
    plant(monkeypatch)

    with pytest.raises(PlanError) as caught:
        tested(study)

    assert caught.value.error_id == "GLD-P070"
    assert told in caught.value.why
