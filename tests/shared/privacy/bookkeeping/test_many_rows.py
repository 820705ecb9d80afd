"""Linear layers on many rows at once, where the sum is made of float32 products."""

import pytest
import torch
from torch import Tensor, nn

from guilder_shared.privacy.bookkeeping.engine import BookKeeping
from guilder_shared.privacy.bookkeeping.parts import Units

CLIP_NORM = 0.3
SLACK = 1e-3


def clipped(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    engine = BookKeeping(model, CLIP_NORM)
    total = engine.zeros()
    engine.add_clipped(
        lambda: (model(inputs) - targets).square().sum(1), total, Units(len(inputs))
    )
    engine.close()
    return total


@pytest.mark.parametrize("rows", [127, 128, 256, 257, 600])
def test_the_sum_of_many_rows_is_that_of_each_in_float64(rows: int) -> None:
    generator = torch.manual_seed(rows)
    model = nn.Sequential(nn.Linear(20, 9), nn.Tanh(), nn.Linear(9, 7))
    inputs = torch.randn(rows, 20, generator=generator)
    targets = torch.randn(rows, 7, generator=generator)

    found = clipped(model, inputs, targets)

    wide = nn.Sequential(nn.Linear(20, 9), nn.Tanh(), nn.Linear(9, 7)).double()
    wide.load_state_dict(model.state_dict())
    expected = torch.zeros_like(found)
    for x, y in zip(inputs.double(), targets.double(), strict=True):
        grads = torch.autograd.grad(
            (wide(x) - y).square().sum(), list(wide.parameters())
        )
        flat = torch.cat([g.flatten() for g in grads])
        expected += flat * min(1.0, CLIP_NORM * (1 - 2**-10) / float(flat.norm()))
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_one_of_many_rows_moves_the_sum_by_at_most_the_clip_norm() -> None:
    generator = torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(20, 9), nn.Tanh(), nn.Linear(9, 7))
    inputs = 30 * torch.randn(600, 20, generator=generator)
    targets = 30 * torch.randn(600, 7, generator=generator)
    whole = clipped(model, inputs, targets)

    for row in (0, 127, 255, 256, 599):
        kept = torch.arange(600) != row
        moved = whole - clipped(model, inputs[kept], targets[kept])
        assert float(moved.norm()) <= CLIP_NORM * (1 + SLACK)
