"""Models and numbers whose private gradients would lie are refused, before any data."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from guilder_shared.errors import PlanError
from guilder_shared.privacy.bookkeeping.engine import BookKeeping
from guilder_shared.privacy.bookkeeping.parts import Units
from guilder_shared.privacy.bookkeeping.step import PrivateStep, make_private_step

IDS = torch.randint(11, (12, 6), generator=torch.Generator().manual_seed(1))
TARGETS = torch.randint(11, (12,), generator=torch.Generator().manual_seed(2))


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 11))


def step_of(
    model: nn.Module,
    losses: Callable[[Any, Any], Tensor] = cross_entropy,
    *,
    clip_norm: float = 0.25,
    noise_multiplier: float = 0.0,
    divisor: float = 1.0,
) -> PrivateStep:
    return make_private_step(
        model,
        losses,
        torch.optim.SGD([torch.zeros(1)]),
        clip_norm=clip_norm,
        noise_multiplier=noise_multiplier,
        divisor=divisor,
    )


class Unexpanded(nn.Module):
    """Looks the positions up once for the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.head = nn.Linear(8, 11)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1])
        return self.head(self.tokens(ids) + self.positions(places)).mean(1)  # type: ignore[no-any-return]


class Remembering(nn.Module):
    """A layer that keeps what it saw."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 11)
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.detach().sum(0)
        return self.linear(x)  # type: ignore[no-any-return]


class Overwriting(nn.Module):
    """Changes a tensor that a layer has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 11)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.second(y)
        y += 1.0
        return z  # type: ignore[no-any-return]


class Scaling(nn.Module):
    """Draws at random in a layer without a rule, which has to be computed again."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x * self.gain, 0.5)


class Differentiating(nn.Module):
    """An energy and its slope: what comes back to a layer comes back twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.energy = nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = self.energy(self.linear(x))
            (slope,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
        return torch.cat([energy, slope], 1)


def attention(*, batch_first: bool = True, dropout: float = 0.0) -> nn.Module:
    return nn.MultiheadAttention(8, 2, dropout=dropout, batch_first=batch_first)


@pytest.mark.parametrize(
    ("make", "inputs", "error_id"),
    [
        (
            lambda: nn.Sequential(nn.Linear(8, 11), nn.BatchNorm1d(11)),
            random(12, 8),
            "GLD-P020",
        ),
        (Remembering, random(12, 8), "GLD-P021"),
        (lambda: mlp().requires_grad_(False), random(12, 8), "GLD-P024"),
        (Unexpanded, IDS, "GLD-P051"),
        (Unexpanded, IDS[:6], "GLD-P051"),  # as many rows as positions
        (Overwriting, random(12, 8), "GLD-P053"),
        (lambda: nn.Sequential(nn.Embedding(11, 8, max_norm=1.0)), IDS, "GLD-P054"),
        (lambda: nn.Sequential(nn.LSTM(8, 8)), random(12, 3, 8), "GLD-P054"),
        (
            lambda: nn.InstanceNorm1d(8, affine=True, track_running_stats=True),
            IDS,
            "GLD-P054",
        ),
        (
            lambda: nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True),
            random(12, 3, 8),
            "GLD-P054",
        ),
        (lambda: nn.MultiheadAttention(8, 2), random(12, 3, 8), "GLD-P054"),
        (Scaling, random(12, 8), "GLD-P054"),
        (Differentiating, random(12, 8), "GLD-P054"),  # moved a sum by 1.4 clip_norm
    ],
)
def test_a_model_whose_gradients_would_lie_is_refused(
    make: Callable[[], nn.Module], inputs: Tensor, error_id: str
) -> None:
    def losses(outputs: Any, targets: Tensor) -> Tensor:
        first: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
        return first.flatten(1).sum(1)

    with pytest.raises(PlanError) as caught:
        step_of(make(), losses).clipped_sum(inputs, TARGETS[: len(inputs)])

    assert caught.value.error_id == error_id


class Borrowing(nn.Module):
    """Uses another layer's parameter behind its back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 11)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) + F.linear(x, self.first.weight)
        return self.second(x)  # type: ignore[no-any-return]


def test_a_gradient_out_of_sight_is_found_on_synthetic_rows() -> None:
    honest, model = mlp(), Borrowing()

    def losses_of(model: nn.Module) -> Callable[[], Tensor]:
        return lambda: cross_entropy(model(random(12, 8)), TARGETS)

    BookKeeping(honest, 0.1).check_gradient(losses_of(honest), Units(12))
    with pytest.raises(PlanError) as caught:
        BookKeeping(model, 0.1).check_gradient(losses_of(model), Units(12))

    assert caught.value.error_id == "GLD-P055"


@pytest.mark.parametrize("losses", [F.cross_entropy, lambda o, _: o])
def test_losses_that_are_not_one_per_row_are_refused(losses: Any) -> None:
    with pytest.raises(PlanError) as caught:
        step_of(mlp(), losses).clipped_sum(random(12, 8), TARGETS)

    assert caught.value.error_id == "GLD-P052"


@pytest.mark.parametrize(
    "number",
    [
        {"clip_norm": 0.0},
        {"clip_norm": math.inf},
        {"clip_norm": math.nan},
        {"noise_multiplier": -1.0},
        {"divisor": 0.0},
    ],
)
def test_numbers_that_promise_nothing_are_refused(number: dict[str, float]) -> None:
    with pytest.raises(PlanError) as caught:
        step_of(mlp(), **number)  # type: ignore[arg-type]

    assert caught.value.error_id == "GLD-P050"
