"""Descent on gradients that are private already: exact, and corrected for the noise."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from guilder_shared.privacy import accounting
from guilder_shared.study import Study
from guilder_shared.training import optimizers
from guilder_shared.training.optimizers import GradientDescent, PrivateAdam

Make = Callable[..., Study]


def parameters(num: int = 5, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1, 1, num, dtype=dtype))


def gradients(steps: int, num: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(steps, num, generator=generator, dtype=torch.float64)


def follow(optimizer: GradientDescent, p: nn.Parameter, grads: torch.Tensor) -> None:
    for grad in grads:
        p.grad = grad.to(p.dtype)
        optimizer.step()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_descent_is_torchs_to_the_bit(momentum: float) -> None:
    ours, theirs = parameters(dtype=torch.float32), parameters(dtype=torch.float32)

    follow(GradientDescent([ours], 0.3, momentum), ours, gradients(9))
    sgd = torch.optim.SGD([theirs], 0.3, momentum=momentum)
    for grad in gradients(9):
        theirs.grad = grad.float()
        sgd.step()

    assert torch.equal(ours, theirs)


def test_without_noise_adam_is_adam() -> None:
    ours, theirs = parameters(), parameters()

    follow(PrivateAdam([ours], 0.05, (0.8, 0.95)), ours, gradients(12))
    adam = torch.optim.Adam([theirs], 0.05, betas=(0.8, 0.95), eps=1e-15)
    for grad in gradients(12):
        theirs.grad = grad
        adam.step()

    assert torch.allclose(ours, theirs, rtol=1e-12)


def by_the_paper(
    start: np.ndarray, grads: np.ndarray, stds: list[float], floor: float
) -> np.ndarray:
    """DP-AdamBC's algorithm 1 in whole sums instead of moving averages."""
    first, second, p = 0.9, 0.99, start.copy()
    for t in range(1, len(grads) + 1):
        ages = np.arange(t - 1, -1, -1.0)
        u, w = first**ages, second**ages
        mean = (u[:, None] * grads[:t]).sum(0) / u.sum()
        square = (w[:, None] * grads[:t] ** 2).sum(0) / w.sum()
        noise = (w * np.array(stds[:t]) ** 2).sum() / w.sum()
        p -= 0.1 * mean / np.sqrt(np.maximum(square - noise, floor**2 * noise))
    return p


def test_adam_subtracts_the_noise_as_the_paper_says() -> None:
    p = parameters()
    stds = [0.5, 0.4, 0.7, 0.6, 0.5, 0.3]
    start, grads = p.detach().numpy().copy(), gradients(6)

    optimizer = PrivateAdam([p], 0.1, (0.9, 0.99), floor=0.3)
    for grad, std in zip(grads, stds, strict=True):
        optimizer.noise_std = std
        follow(optimizer, p, grad[None])

    expected = by_the_paper(start, grads.numpy(), stds, 0.3)
    assert p.detach().numpy() == pytest.approx(expected, rel=1e-12)


def test_after_many_steps_the_scale_is_the_gradients_and_not_the_noises() -> None:
    """A gradient of half the noise's size moves by the learning rate a step, as with
    Adam on the gradient itself; uncorrected it would move by less than half of it."""
    steps, noise, signal = 20_000, 1.0, 0.5
    generator = torch.Generator().manual_seed(5)
    p = nn.Parameter(torch.zeros(40, dtype=torch.float64))
    optimizer = PrivateAdam([p], 1.0, (0.9, 0.9999), floor=0.01)
    optimizer.noise_std = noise

    for step in range(steps):
        if step == steps - 1000:
            before = p.detach().clone()
        drawn = torch.randn(40, generator=generator, dtype=torch.float64)
        follow(optimizer, p, (signal + noise * drawn)[None])

    moved = float((before - p.detach()).mean()) / 1000
    assert moved == pytest.approx(1.0, abs=0.05)
    assert signal / math.hypot(signal, noise) < 0.5  # what Adam would have made of it


def test_where_nothing_but_noise_comes_no_step_is_longer_than_the_floor_allows() -> (
    None
):
    p = nn.Parameter(torch.zeros(1000, dtype=torch.float64))
    optimizer = PrivateAdam([p], 1.0, floor=1.0)
    optimizer.noise_std = 2.0

    follow(optimizer, p, 2.0 * gradients(1, 1000))

    assert bool((p.abs() <= gradients(1, 1000).abs()[0] + 1e-12).all())


def test_a_gradient_of_zeros_moves_nothing() -> None:
    p = parameters()

    follow(PrivateAdam([p], 1.0), p, torch.zeros(3, 5))

    assert torch.equal(p.detach(), parameters().detach())


def test_frozen_parameters_stay() -> None:
    frozen, free = parameters(), parameters()
    frozen.requires_grad_(False)
    optimizer = PrivateAdam([frozen, free], 1.0)
    frozen.grad = free.grad = gradients(1)[0]

    optimizer.step()

    assert torch.equal(frozen, parameters())
    assert not torch.equal(free, parameters())


def test_a_study_names_its_optimizer(study_of: Make) -> None:
    adam = study_of(optimizer="adam", local_steps=2, betas=[0.5, 0.6], floor=0.25)
    momentum = study_of(momentum=0.75, local_steps=2)

    made = optimizers.make([parameters()], adam.training)
    other = optimizers.make([parameters()], momentum.training)

    assert isinstance(made, PrivateAdam)
    assert (made.betas, made.floor) == ((0.5, 0.6), 0.25)
    assert type(other) is GradientDescent
    assert other.momentum == 0.75


@pytest.mark.parametrize(
    "switch",
    [
        {"optimizer": "adam"},
        {"momentum": 0.9},
        {"average": 0.9},
        {"augment": {"copies": 4, "mask": 0.1}},
        {"adaptive_clip": {}},
    ],
)
def test_no_switch_changes_what_a_turn_costs(
    study_of: Make, switch: dict[str, object]
) -> None:
    plain, other = study_of(local_steps=3), study_of(local_steps=3, **switch)

    plan = accounting.solve(plain)

    assert accounting.solve(other) == plan
    assert accounting.turn_event(other, plan) == accounting.turn_event(plain, plan)
    assert accounting.confirm(other, plan) == accounting.confirm(plain, plan)
    assert plain.digest() != other.digest()
