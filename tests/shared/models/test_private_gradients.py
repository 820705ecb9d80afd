"""Every model's clipped sum against a loop in float64 over records, or over persons."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from guilder_shared import tasks
from guilder_shared.models import registry
from guilder_shared.privacy.bookkeeping.engine import CLIP_MARGIN
from guilder_shared.privacy.bookkeeping.step import make_private_step
from guilder_shared.study import Study

RECORDS = torch.arange(6)
PERSONS = torch.tensor([4, 1, 4, 4, 1, 9])

NAMES = [
    "cnn",
    "cnn-head",
    "cnn-bias",
    "tanhcnn",
    pytest.param("resnet18", marks=pytest.mark.slow),
    "unet",
    "unet-bias",
    "encoder",
    "encoder-head",
    "encoder-head-without-bias",
    "encoder-bias",
    "encoder-lora",
]


def rows(study: Study) -> tuple[Tensor, Tensor]:
    wanted = registry.inputs(study)
    rng = np.random.default_rng(1)
    shape = (6, *wanted.shape)
    if wanted.tokens is None:
        inputs = torch.from_numpy(rng.uniform(-1, 1, shape).astype(np.float32))
    else:
        inputs = torch.from_numpy(rng.integers(1, wanted.tokens, shape))
    if wanted.mask:
        masks = rng.random((6, *wanted.shape[1:])) < 0.3
        return inputs, torch.from_numpy(masks.astype(np.float32))
    return inputs, torch.from_numpy(rng.integers(0, 3, 6).astype(np.float32))


def model_of(study: Study) -> nn.Module:
    """Far from where it starts: adapters that are zero would hide half a rule."""
    module = registry.load(registry.initial(study), study)
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return module


def by_loop(study: Study, model: nn.Module, units: Tensor) -> tuple[Tensor, float]:
    """The paper's sum in float64, flat, clipped at the units' median norm; and that."""
    inputs, targets = rows(study)
    losses = tasks.recipe(study.study.recipe).losses
    wide = copy.deepcopy(model).double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    params = [p for p in wide.parameters() if p.requires_grad]
    grads = []
    for unit in torch.unique(units):
        mine = units == unit
        loss = losses(wide(inputs[mine]), targets[mine].double()).sum()
        found = torch.autograd.grad(loss, params)
        grads.append(torch.cat([g.reshape(-1) for g in found]))
    norms = torch.stack([g.norm() for g in grads])
    clip_norm = float(norms.median())
    factors = (clip_norm * CLIP_MARGIN / norms).clamp(max=1.0)
    return torch.stack(grads).T @ factors, clip_norm


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)]
)
@pytest.mark.parametrize("units", [RECORDS, PERSONS], ids=["records", "persons"])
@pytest.mark.parametrize("name", NAMES)
def test_a_models_isolated_sum_is_the_loops(
    made: Callable[..., Study],
    name: str,
    units: Tensor,
    dtype: torch.dtype,
    limit: float,
) -> None:
    small = made(name)
    model = model_of(small)
    expected, clip_norm = by_loop(small, model, units)
    inputs, targets = rows(small)
    wide = copy.deepcopy(model).to(dtype)
    step = make_private_step(
        wide,
        tasks.recipe(small.study.recipe).losses,
        None,
        clip_norm=clip_norm,
        noise_multiplier=0.0,
        divisor=6.0,
        isolated=True,
    )

    total = step.clipped_sum(
        inputs.to(dtype) if inputs.is_floating_point() else inputs,
        targets.to(dtype),
        None if units is RECORDS else units,
    )

    by_id = {
        id(p): x
        for p, x in zip(step.engine.params, step.engine.split(total), strict=True)
    }
    trained = [p for p in wide.parameters() if p.requires_grad]
    found = torch.cat([by_id[id(p)].reshape(-1) for p in trained])
    assert float((found - expected).norm()) <= limit * float(expected.norm())
