"""One private step: what a unit can move, what it cannot, and what is refused."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # no stubs
from torch import Tensor, nn

from guilder_shared.errors import PlanError
from guilder_shared.privacy import clipping, isolation
from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.clipping import PrivateOptimizer, check_model, wrap
from guilder_shared.privacy.noise import grid_for
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.training import device
from guilder_shared.training.descent import GradientDescent

FALSE_ALARM = 1e-6
CLIP_NORM = 0.25
LIMIT = CLIP_NORM * (1 + SENSITIVITY_SLACK)
KEYS = TurnKeys.seeded(3, site="site-1", round_no=1)


def mlp(scale: float = 1.0) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    module = nn.Sequential(
        nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    )
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.2 * scale)
    return module


def optimizer_of(
    module: nn.Module, noise_multiplier: float = 0.0, divisor: float = 1.0
) -> PrivateOptimizer:
    return PrivateOptimizer(
        GradientDescent(module.parameters(), 1.0),
        noise_multiplier=noise_multiplier,
        clip_norm=CLIP_NORM,
        divisor=divisor,
        keys=KEYS,
    )


def clipped_sum(
    inputs: NDArray[np.float32], targets: NDArray[np.float32], scale: float = 1.0
) -> NDArray[np.float64]:
    """The sum as a turn computes it: float32 forward and backward, our clipping."""
    with device.one_thread():
        model = wrap(mlp(scale))
        optimizer = optimizer_of(model)
        logits = model(torch.from_numpy(inputs)).squeeze(-1)
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, torch.from_numpy(targets), reduction="sum"
        )
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.clip_and_accumulate()
    return np.array(optimizer._total.numpy())


def rows(num: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
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

    assert np.linalg.norm(whole) > 4000 * CLIP_NORM * clipping.CLIP_MARGIN
    assert np.linalg.norm(whole - less) <= LIMIT


@pytest.mark.slow
def test_removing_one_of_a_thousand_records_moves_the_sum_by_no_more() -> None:
    inputs, targets = rows(1000, seed=1)
    whole = clipped_sum(inputs, targets, 3.0)

    for i in range(0, 1000, 5):
        less = clipped_sum(np.delete(inputs, i, 0), np.delete(targets, i, 0), 3.0)
        assert np.linalg.norm(whole - less) <= LIMIT


def filled(grads: Sequence[Tensor]) -> PrivateOptimizer:
    """An optimizer whose per-unit gradients are given by hand."""
    module = nn.Linear(3, 2)
    optimizer = optimizer_of(module)
    for p, grad in zip(module.parameters(), grads, strict=True):
        p.grad_sample = grad  # type: ignore[attr-defined]
    return optimizer


def hand_made(num: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    return [
        torch.randn(num, 2, 3, generator=generator),
        torch.randn(num, 2, generator=generator),
    ]


def test_the_sum_is_that_of_the_paper() -> None:
    grads = hand_made(40)
    optimizer = filled(grads)

    optimizer.clip_and_accumulate()

    expected = np.zeros(8)
    for i in range(40):
        unit = np.concatenate([g[i].reshape(-1).double().numpy() for g in grads])
        limit = CLIP_NORM * clipping.CLIP_MARGIN
        expected += unit * min(1.0, limit / np.linalg.norm(unit))
    assert optimizer._total.numpy() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_unit_that_is_not_finite_counts_exactly_zero(bad: float) -> None:
    grads = hand_made(40)
    for g in grads:
        g[17] = 0.0
    clean = filled([g.clone() for g in grads])
    grads[0][17, 1, 2] = bad
    dirty = filled(grads)

    clean.clip_and_accumulate()
    dirty.clip_and_accumulate()

    assert torch.equal(clean._total, dirty._total)
    assert bool(torch.isfinite(dirty._total).all())


def test_a_row_with_nan_leaves_the_other_rows_gradients_alone() -> None:
    inputs, targets = rows(64)
    dirty = inputs.copy()
    dirty[5, 3] = np.nan

    with_nan = clipped_sum(dirty, targets)
    without = clipped_sum(np.delete(inputs, 5, 0), np.delete(targets, 5, 0))

    assert with_nan == pytest.approx(without, abs=1e-6)


def test_huge_and_zero_gradients_are_clipped_and_kept() -> None:
    grads = [torch.zeros(3, 2, 3), torch.zeros(3, 2)]
    grads[0][0, 0, 0] = 3e38
    grads[0][1, 0, 1] = 1e-30
    optimizer = filled(grads)

    optimizer.clip_and_accumulate()

    total = optimizer._total.numpy()
    assert total[0] == pytest.approx(CLIP_NORM * clipping.CLIP_MARGIN)
    assert total[1] == pytest.approx(1e-30)
    assert np.count_nonzero(total) == 2


def test_chunks_add_up_to_the_whole_batch() -> None:
    grads = hand_made(50)
    whole = filled(grads)
    whole.clip_and_accumulate()
    parts = filled([g[:20] for g in grads])
    parts.signal_skip_step(True)
    parts.step()
    parts.zero_grad()

    for p, grad in zip(parts.params, grads, strict=True):
        p.grad_sample = grad[20:]
    parts.clip_and_accumulate()

    assert parts._total.numpy() == pytest.approx(whole._total.numpy(), rel=1e-12)


def test_an_empty_batch_is_a_step_of_noise_alone() -> None:
    module = nn.Linear(1000, 100)
    before = module.weight.detach().clone()
    optimizer = optimizer_of(module, noise_multiplier=2.0, divisor=10.0)

    optimizer.empty_step()

    moved = (module.weight.detach() - before).double() * 10.0 / CLIP_NORM
    std = math.hypot(2.0, grid_for(2.0 * CLIP_NORM) / CLIP_NORM / math.sqrt(12))
    num = moved.numel()
    z = float(stats.norm.isf(FALSE_ALARM / 4))
    assert abs(float(moved.mean())) < z * std / math.sqrt(num)
    assert abs(float(moved.var()) / std**2 - 1) < z * math.sqrt(2 / num)


def test_every_step_draws_fresh_noise_and_forgets_the_last_sum() -> None:
    module = nn.Linear(50, 2, bias=False)
    optimizer = optimizer_of(module, noise_multiplier=1.0)
    places = [module.weight.detach().clone()]

    for _ in range(3):
        optimizer.empty_step()
        optimizer.zero_grad()
        places.append(module.weight.detach().clone())

    moves = [b - a for a, b in itertools.pairwise(places)]
    assert not torch.allclose(moves[0], moves[1])
    assert not torch.allclose(moves[1], moves[2])
    assert optimizer.steps_taken == 3
    assert not bool(optimizer._total.any())


def test_a_sum_that_was_released_is_not_released_again() -> None:
    optimizer = filled(hand_made(20))
    optimizer.step()
    optimizer.zero_grad()
    before = [p.detach().clone() for p in optimizer.params]

    optimizer.empty_step()  # no noise here: nothing is left to move

    assert all(torch.equal(a, p) for a, p in zip(before, optimizer.params, strict=True))


def test_the_divisor_is_the_public_one_whatever_the_batch_holds() -> None:
    steps = []
    for num in (1, 7):
        optimizer = filled(
            [g[:1].repeat(num, *[1] * (g.dim() - 1)) for g in hand_made(1)]
        )
        optimizer.divisor = 4.0
        optimizer.pre_step()
        steps.append(torch.cat([p.grad.reshape(-1) for p in optimizer.params]))

    assert steps[1].numpy() == pytest.approx(7 * steps[0].numpy(), rel=1e-6)
    norm = float(steps[0].norm())
    assert norm == pytest.approx(CLIP_NORM * clipping.CLIP_MARGIN / 4.0, rel=1e-6)


def test_chunk_size_depends_on_shapes_alone_and_bounds_memory() -> None:
    assert isolation.chunk_rows(nn.Linear(30, 1)) == 4096
    assert 1 <= isolation.chunk_rows(nn.Linear(4096, 4096)) <= 2
    assert 300 < isolation.chunk_rows(mlp()) < 600


class Tied(nn.Module):
    """One matrix used for the way in and the way out."""

    def __init__(self) -> None:
        super().__init__()
        self.way_in, self.way_out = nn.Linear(4, 4), nn.Linear(4, 4)
        self.way_out.weight = self.way_in.weight


class Own(nn.Module):
    """A layer that holds a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))


class Remembering(nn.Module):
    """A layer that keeps what it saw."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(4))


@pytest.mark.parametrize(
    ("module", "error_id"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "GLD-P020"),
        (nn.SyncBatchNorm(4), "GLD-P020"),
        (Remembering(), "GLD-P021"),
        (Own(), "GLD-P022"),
        (Tied(), "GLD-P023"),
        (nn.ReLU(), "GLD-P024"),
        (nn.Linear(4, 4).requires_grad_(False), "GLD-P024"),
    ],
)
def test_a_model_whose_gradients_would_lie_is_refused(
    module: nn.Module, error_id: str
) -> None:
    with pytest.raises(PlanError) as caught:
        check_model(module)

    assert caught.value.error_id == error_id


def test_honest_layers_pass() -> None:
    check_model(
        nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Linear(8, 2)
        )
    )
