"""One step: what a unit can move at worst, noise, divisor, the model after."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.bookkeeping.engine import CLIP_MARGIN, BookKeeping
from guilder_shared.privacy.bookkeeping.step import PrivateStep, make_private_step
from guilder_shared.privacy.sampling import TurnKeys

KEYS = TurnKeys.seeded(3, site="site-1", round_no=1)
TARGETS = torch.randint(11, (12,), generator=torch.Generator().manual_seed(2))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace=True), nn.Linear(16, 11))


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def step_of(
    model: nn.Module,
    losses: Callable[[Any, Any], Tensor] = cross_entropy,
    *,
    clip_norm: float = 0.25,
    noise_multiplier: float = 0.0,
    divisor: float = 1.0,
    microbatch: int | None = None,
) -> PrivateStep:
    return make_private_step(
        model,
        losses,
        torch.optim.SGD(model.parameters(), lr=1.0),
        clip_norm=clip_norm,
        noise_multiplier=noise_multiplier,
        divisor=divisor,
        keys=KEYS,
        microbatch=microbatch,
    )


def test_every_pass_has_the_height_that_was_asked_for() -> None:
    model, heights = mlp(), set()
    model.register_forward_hook(lambda _layer, args, _out: heights.add(len(args[0])))
    step = step_of(model, microbatch=8)
    step.prepare(random(0, 8), TARGETS[:0])
    heights.clear()

    for num in (1, 8, 12):
        step.clipped_sum(random(num, 8), TARGETS[:num])

    assert heights == {8}


def test_a_huge_gradient_is_clipped_and_a_tiny_one_kept() -> None:
    model = nn.Linear(1, 1, bias=False)
    step = step_of(model, lambda out, y: out.squeeze(1) * y, clip_norm=0.25)

    total = step.clipped_sum(torch.ones(2, 1), torch.tensor([3e38, 0.0]))
    tiny = step.clipped_sum(torch.ones(2, 1), torch.tensor([1e-12, 0.0]))

    assert float(total) == pytest.approx(0.25 * CLIP_MARGIN)
    assert float(tiny) == pytest.approx(1e-12)


@pytest.mark.parametrize("apart", [10.0, 0.1])
def test_places_that_cancel_never_count_more_than_the_clip_norm(apart: float) -> None:
    """A ghost norm adds terms 10^5 to 10^9 times larger than their sum."""
    torch.manual_seed(0)
    model = nn.Linear(64, 64, bias=False)
    a = random(1, 8, 64, seed=1).repeat(1, 2, 1) * 1e3
    a[:, 8:] += random(1, 8, 64, seed=2) * apart
    g = torch.cat([random(1, 8, 64, seed=3)] * 2, 1)
    g[:, 8:] *= -1
    step = step_of(model, lambda out, y: (out * y).sum((1, 2)), clip_norm=0.25)
    step.engine._choose = lambda *_: "ghost"

    moved = float(step.clipped_sum(a, g).norm())

    true = float((g[0].double().mT @ a[0].double()).norm())
    assert true > 0.25
    assert moved <= 0.25 * (1 + SENSITIVITY_SLACK)
    if apart == 10.0:  # float32 still holds the sum: nothing of it is given away
        assert moved >= 0.25 * CLIP_MARGIN**2


def test_a_person_of_many_rows_moves_the_sum_no_more_than_one_of_one_row() -> None:
    step = step_of(mlp(), clip_norm=0.05)
    inputs, targets = random(300, 8), torch.randint(11, (300,))
    persons = torch.cat([torch.zeros(200, dtype=torch.int64), torch.arange(1, 101)])
    whole = step.clipped_sum(inputs, targets, persons)

    for person in (0, 1, 50):
        rest = persons != person
        less = step.clipped_sum(inputs[rest], targets[rest], persons[rest])
        move = float((whole - less).norm())
        assert 0.9 * 0.05 <= move <= 0.05 * (1 + SENSITIVITY_SLACK)


def test_the_divisor_is_the_public_one_and_the_noise_is_fresh() -> None:
    model = nn.Linear(50, 2, bias=False)
    step = step_of(model, noise_multiplier=2.0, divisor=8.0)
    places = [model.weight.detach().clone()]

    for _ in range(2):
        step(torch.zeros(0, 50), TARGETS[:0])
        places.append(model.weight.detach().clone())

    moves = [places[1] - places[0], places[2] - places[1]]
    assert not torch.allclose(moves[0], moves[1])
    spread = float(torch.cat(moves).std()) * 8.0 / 0.25
    assert 1.2 < spread < 2.8  # 200 normal numbers of deviation 2: 16 sigma wide
    assert all(p.grad is None for p in model.parameters())


def test_training_in_between_without_privacy_is_left_alone() -> None:
    model = mlp()
    step = step_of(model)
    step(random(12, 8), TARGETS)

    cross_entropy(model(random(12, 8)), TARGETS).sum().backward()  # type: ignore[no-untyped-call]

    assert all(p.grad is not None for p in model.parameters())


def test_a_layer_without_a_rule_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(8, 11), nn.PReLU())

    with caplog.at_level(logging.INFO):
        step = step_of(model)
        step(random(12, 8), TARGETS)
        step(random(12, 8), TARGETS)

    said = [r.getMessage() for r in caplog.records if "torch.func" in r.getMessage()]
    assert len(said) == 1
    assert "layer 1 (PReLU)" in said[0]


def test_closing_leaves_the_model_as_it_was() -> None:
    model = mlp()
    engine = BookKeeping(model, 1.0)

    engine.close()

    assert not any(layer._forward_hooks for layer in model.modules())
    assert all(p.requires_grad for p in model.parameters())
