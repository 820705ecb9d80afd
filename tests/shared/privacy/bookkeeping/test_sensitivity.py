"""An isolated step, as a site takes it: what a unit can move and what it cannot."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # no stubs
from torch import Tensor, nn

from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.bookkeeping.engine import CLIP_MARGIN
from guilder_shared.privacy.bookkeeping.step import PrivateStep, make_private_step
from guilder_shared.privacy.noise import grid_for
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.training import device
from guilder_shared.training.optimizers import GradientDescent

FALSE_ALARM = 1e-6
CLIP_NORM = 0.25
LIMIT = CLIP_NORM * (1 + SENSITIVITY_SLACK)
KEYS = TurnKeys.seeded(3, site="site-1", round_no=1)

Floats = NDArray[np.float32]


def mlp(scale: float = 1.0) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    module = nn.Sequential(
        nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    )
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.2 * scale)
    return module


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(
        outputs.squeeze(-1), targets, reduction="none"
    )


def step_of(
    module: nn.Module,
    noise_multiplier: float = 0.0,
    divisor: float = 1.0,
    microbatch: int | None = None,
) -> PrivateStep:
    return make_private_step(
        module,
        losses,
        GradientDescent(module.parameters(), 1.0),
        noise_multiplier=noise_multiplier,
        clip_norm=CLIP_NORM,
        divisor=divisor,
        keys=KEYS,
        microbatch=microbatch,
        isolated=True,
    )


def clipped_sum(
    inputs: Floats, targets: Floats, scale: float = 1.0
) -> NDArray[np.float64]:
    """The sum as a turn computes it."""
    with device.one_thread():
        step = step_of(mlp(scale), divisor=100.0)
        total = step.clipped_sum(torch.from_numpy(inputs), torch.from_numpy(targets))
    return np.array(total.numpy())


def rows(num: int, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(-1, 1, (num, 12)).astype(np.float32)
    return inputs, (rng.random(num) < 0.3).astype(np.float32)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_removing_any_record_moves_the_sum_by_at_most_the_sensitivity(
    scale: float,
) -> None:
    inputs, targets = rows(90)
    whole = clipped_sum(inputs, targets, scale)

    moves = [
        np.linalg.norm(
            whole
            - clipped_sum(np.delete(inputs, i, 0), np.delete(targets, i, 0), scale)
        )
        for i in range(0, 90, 6)
    ]

    assert max(moves) <= LIMIT


def test_removing_one_of_many_equal_records_moves_the_sum_by_no_more() -> None:
    """The worst case for a float sum: every record pulls the same way."""
    inputs = np.repeat(rows(1)[0] * 50, 4096, axis=0)
    targets = np.ones(4096, np.float32)

    whole = clipped_sum(inputs, targets, 10.0)
    less = clipped_sum(inputs[1:], targets[1:], 10.0)

    assert np.linalg.norm(whole) > 4000 * CLIP_NORM * CLIP_MARGIN
    assert np.linalg.norm(whole - less) <= LIMIT


@pytest.mark.slow
def test_removing_one_of_a_thousand_records_moves_the_sum_by_no_more() -> None:
    inputs, targets = rows(1000, seed=1)
    whole = clipped_sum(inputs, targets, 3.0)

    for i in range(0, 1000, 5):
        less = clipped_sum(np.delete(inputs, i, 0), np.delete(targets, i, 0), 3.0)
        assert np.linalg.norm(whole - less) <= LIMIT


def test_a_row_with_nan_leaves_the_other_rows_gradients_alone() -> None:
    inputs, targets = rows(64)
    dirty = inputs.copy()
    dirty[5, 3] = np.nan

    with_nan = clipped_sum(dirty, targets)
    without = clipped_sum(np.delete(inputs, 5, 0), np.delete(targets, 5, 0))

    assert with_nan == pytest.approx(without, abs=1e-12)


def test_the_height_of_passes_changes_nothing_but_the_last_bits() -> None:
    inputs, targets = map(torch.from_numpy, rows(300))

    sums = [
        step_of(mlp(), microbatch=height).clipped_sum(inputs, targets)
        for height in (64, 128, 512)
    ]

    for other in sums[1:]:
        assert other.numpy() == pytest.approx(sums[0].numpy(), abs=1e-6)


def test_an_empty_batch_is_a_step_of_noise_alone() -> None:
    module = nn.Linear(1000, 100)
    before = module.weight.detach().clone()
    step = step_of(module, noise_multiplier=2.0, divisor=10.0)

    step(torch.zeros(0, 1000), torch.zeros(0))

    moved = (module.weight.detach() - before).double() * 10.0 / CLIP_NORM
    std = math.hypot(2.0, grid_for(2.0 * CLIP_NORM) / CLIP_NORM / math.sqrt(12))
    num = moved.numel()
    z = float(stats.norm.isf(FALSE_ALARM / 4))
    assert abs(float(moved.mean())) < z * std / math.sqrt(num)
    assert abs(float(moved.var()) / std**2 - 1) < z * math.sqrt(2 / num)


def test_every_step_draws_fresh_noise() -> None:
    module = nn.Linear(50, 2, bias=False)
    step = step_of(module, noise_multiplier=1.0)
    places = [module.weight.detach().clone()]

    for _ in range(3):
        step(torch.zeros(0, 50), torch.zeros(0))
        places.append(module.weight.detach().clone())

    moves = [b - a for a, b in itertools.pairwise(places)]
    assert not torch.allclose(moves[0], moves[1])
    assert not torch.allclose(moves[1], moves[2])
    assert step.steps_taken == 3


def test_a_sum_that_was_released_is_not_released_again() -> None:
    module = mlp()
    step = step_of(module)
    step(*map(torch.from_numpy, rows(20)))
    before = [p.detach().clone() for p in module.parameters()]

    step(torch.zeros(0, 12), torch.zeros(0))  # no noise here: nothing is left to move

    assert all(
        torch.equal(a, p) for a, p in zip(before, module.parameters(), strict=True)
    )


def test_the_divisor_is_the_public_one_whatever_the_batch_holds() -> None:
    moves = []
    for num in (1, 7):
        module = mlp(10.0)
        before = torch.cat(
            [p.detach().reshape(-1).clone() for p in module.parameters()]
        )
        inputs = rows(1)[0] * 50
        step = step_of(module, divisor=4.0)
        step(
            torch.from_numpy(np.repeat(inputs, num, 0)),
            torch.ones(num),
        )
        after = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
        moves.append(before - after)

    assert moves[1].numpy() == pytest.approx(7 * moves[0].numpy(), abs=1e-5)
    norm = float(moves[0].norm())
    assert norm == pytest.approx(CLIP_NORM * CLIP_MARGIN / 4.0, rel=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_weights_that_make_squares_vanish_gain_nothing(bias: bool) -> None:
    """A server's weights make a layer see 1e30 and be told 1e-23.

    What is told squared is zero in float32, and so was the norm of a gradient of 1e7.
    """
    module = mlp()
    first, middle, last = (x for x in module.modules() if isinstance(x, nn.Linear))
    with torch.no_grad():
        first.weight *= 1e30
        middle.weight *= 1e-30
        last.bias.fill_(-53.0)  # a loss that is nearly flat where the target is 0
        if not bias:
            for layer in (first, middle):
                layer.bias.zero_().requires_grad_(False)
    inputs = torch.from_numpy(rows(4)[0])
    step = step_of(module)

    whole = step.clipped_sum(inputs, torch.zeros(4))
    less = step.clipped_sum(inputs[1:], torch.zeros(3))

    assert float((whole - less).norm()) <= LIMIT
    seen = first(inputs).detach().relu().double()
    back = last.weight.detach().double() * math.exp(-53.0)
    assert float(seen.norm(dim=1).min() * back.norm()) > 1e3 * LIMIT
