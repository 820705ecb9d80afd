"""The engine as a whole: models, units, refusals, and what one unit can move."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.bookkeeping import autotune
from guilder_shared.privacy.bookkeeping.engine import CLIP_MARGIN
from guilder_shared.privacy.bookkeeping.step import PrivateStep, make_private_step
from guilder_shared.privacy.sampling import TurnKeys

KEYS = TurnKeys.seeded(3, site="site-1", round_no=1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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
    isolated: bool = False,
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
        isolated=isolated,
    )


def by_loop(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    losses: Callable[[Any, Any], Tensor],
    clip_norm: float,
) -> Tensor:
    """The clipped sum in float64, one row at a time, flat, by `named_parameters`."""
    wide = copy.deepcopy(model).double()
    params = [p for p in wide.parameters() if p.requires_grad]
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    total = torch.zeros(sum(p.numel() for p in params), dtype=torch.float64)
    for i in range(len(inputs)):
        loss = losses(wide(inputs[i : i + 1]), targets[i : i + 1]).sum()
        grads = torch.autograd.grad(loss, params)
        flat = torch.cat([g.reshape(-1) for g in grads])
        total += flat * min(1.0, clip_norm * CLIP_MARGIN / float(flat.norm()))
    return total


def flat_sum(step: PrivateStep, inputs: Any, targets: Any, units: Any = None) -> Tensor:
    """The engine's sum, flat, in the model's own order of parameters."""
    parts = step.engine.split(step.clipped_sum(inputs, targets, units))
    by_id = {id(p): x for p, x in zip(step.engine.params, parts, strict=True)}
    params = [p for p in step.engine.model.parameters() if p.requires_grad]
    return torch.cat([by_id[id(p)].reshape(-1) for p in params])


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


class Positioned(nn.Module):
    """A small encoder: tokens, positions, attention or LoRA, norms, a head."""

    def __init__(self, *, tied: bool = False, attention: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8, padding_idx=0)
        self.positions = nn.Embedding(6, 8)
        self.norm = nn.LayerNorm(8)
        self.attention = (
            nn.MultiheadAttention(8, 2, batch_first=True) if attention else None
        )
        self.inner = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        # Expanded: ids without strides of their own.
        places = torch.arange(ids.shape[1]).expand(len(ids), -1)
        x = self.norm(self.tokens(ids) + self.positions(places))
        if self.attention is not None:
            x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.inner(x).tanh() + self.inner(x * 0.5)  # one layer used twice
        return self.head(x).mean(1)  # type: ignore[no-any-return]


class LoRA(nn.Module):
    """A frozen layer and a trained one of low rank beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(8, 8).requires_grad_(False)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))  # type: ignore[no-any-return]


def unet_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    maps = targets[:, None, None, None].expand_as(outputs).to(outputs.dtype)
    each = F.binary_cross_entropy_with_logits(outputs, maps / 11, reduction="none")
    return each.flatten(1).mean(1)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.GroupNorm(2, 8),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(8, 8, 2, stride=2),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 11),
    )


def segmenter() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 1, 1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace=True), nn.Linear(16, 11))


def lora() -> nn.Module:
    frozen = nn.Embedding(11, 8).requires_grad_(False)
    return nn.Sequential(frozen, LoRA(), nn.Flatten(), nn.Linear(48, 11))


IDS = torch.randint(11, (12, 6), generator=torch.Generator().manual_seed(1))
MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor, Any]] = {
    "mlp": (mlp, random(12, 8), cross_entropy),
    "cnn": (cnn, random(12, 3, 8, 8), cross_entropy),
    "segmenter": (segmenter, random(12, 3, 8, 8), unet_losses),
    "encoder": (Positioned, IDS, cross_entropy),
    "tied": (lambda: Positioned(tied=True), IDS, cross_entropy),
    "attention": (lambda: Positioned(attention=True), IDS, cross_entropy),
    "lora": (lora, IDS, cross_entropy),
    "two in one": (
        lambda: nn.Sequential(*[nn.Linear(8, 8)] * 2, nn.Linear(8, 11)),
        random(12, 8),
        cross_entropy,
    ),
}
TARGETS = torch.randint(11, (12,), generator=torch.Generator().manual_seed(2))


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Any]:
    make, inputs, losses = MODELS[request.param]
    torch.manual_seed(0)
    return make(), inputs, losses


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)]
)
@pytest.mark.parametrize("clip_norm", [1e-3, 0.3, 1e6])
def test_a_models_sum_is_the_loops(
    case: tuple[nn.Module, Tensor, Any],
    dtype: torch.dtype,
    limit: float,
    clip_norm: float,
) -> None:
    model, inputs, losses = case
    model = model.to(dtype)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    step = step_of(model, losses, clip_norm=clip_norm)

    found = flat_sum(step, inputs, TARGETS)

    wanted = by_loop(model, inputs, TARGETS, losses, clip_norm)
    assert off(found, wanted) <= limit


def test_micro_batches_add_up_to_the_whole(case: tuple[nn.Module, Tensor, Any]) -> None:
    model, inputs, losses = case
    persons = torch.tensor([3, 1, 3, 1, 2, 3, 5, 5, 5, 5, 5, 4])
    whole = flat_sum(step_of(model, losses), inputs, TARGETS)
    together = flat_sum(step_of(model, losses), inputs, TARGETS, persons)

    parts = flat_sum(step_of(model, losses, microbatch=5), inputs, TARGETS)
    by_person = flat_sum(step_of(model, losses, microbatch=4), inputs, TARGETS, persons)

    assert off(parts, whole) <= 1e-6
    assert off(by_person, together) <= 1e-6


@pytest.mark.parametrize("name", ["mlp", "cnn", "segmenter", "encoder"])
def test_the_fastest_way_found_by_trial_gives_the_same_sum(name: str) -> None:
    make, inputs, losses = MODELS[name]
    torch.manual_seed(0)
    model = make()
    autotune._chosen.clear()

    tuned = flat_sum(step_of(model, losses), inputs, TARGETS)

    assert name == "mlp" or autotune._chosen
    step = step_of(model, losses)
    step.engine._choose = None
    assert off(tuned, flat_sum(step, inputs, TARGETS)) <= 1e-5


def test_a_unit_that_is_not_finite_counts_exactly_zero(
    case: tuple[nn.Module, Tensor, Any],
) -> None:
    model, inputs, losses = case

    def spoiled(outputs: Tensor, targets: Tensor) -> Tensor:
        found = losses(outputs, targets)
        factor = torch.ones_like(found)
        factor[[2, 7]] = torch.tensor([math.nan, math.inf])
        scaled: Tensor = found * factor
        return scaled

    found = flat_sum(step_of(model, spoiled), inputs, TARGETS)

    good = [i for i in range(12) if i not in {2, 7}]
    wanted = flat_sum(step_of(model, losses), inputs[good], TARGETS[good])
    assert off(found, wanted) <= 1e-6


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_input_spoils_its_own_unit_only(bad: float) -> None:
    for make in (mlp, cnn):
        model = make()
        inputs = MODELS["mlp" if make is mlp else "cnn"][1]
        dirty = inputs.clone()
        dirty[4].view(-1)[3] = bad

        found = flat_sum(step_of(model), dirty, TARGETS)

        good = [i for i in range(12) if i != 4]
        wanted = flat_sum(step_of(model), inputs[good], TARGETS[good])
        assert bool(torch.isfinite(found).all())
        assert off(found, wanted) <= 1e-6


def test_no_finite_unit_at_all_moves_nothing() -> None:
    found = flat_sum(step_of(mlp()), torch.full((3, 8), math.nan), TARGETS[:3])

    assert not bool(found.any())


@pytest.mark.parametrize("clip_norm", [0.05, 5.0])
def test_removing_any_unit_moves_the_sum_by_at_most_the_sensitivity(
    case: tuple[nn.Module, Tensor, Any], clip_norm: float
) -> None:
    model, inputs, losses = case
    step = step_of(model, losses, clip_norm=clip_norm)
    whole = step.clipped_sum(inputs, TARGETS)

    for i in range(12):
        rest = [j for j in range(12) if j != i]
        move = whole - step.clipped_sum(inputs[rest], TARGETS[rest])
        assert float(move.norm()) <= clip_norm * (1 + SENSITIVITY_SLACK)


def test_removing_one_of_many_equal_units_moves_the_sum_by_no_more() -> None:
    """The worst case for a float sum: every unit pulls the same way."""
    inputs = random(1, 8).repeat(5000, 1) * 50
    targets = torch.zeros(5000, dtype=torch.int64)
    step = step_of(mlp())

    whole = step.clipped_sum(inputs, targets)
    less = step.clipped_sum(inputs[1:], targets[1:])

    assert float(whole.norm()) > 4900 * 0.25 * CLIP_MARGIN
    assert float((whole - less).norm()) <= 0.25 * (1 + SENSITIVITY_SLACK)


def test_an_empty_batch_is_a_step_of_noise_alone(
    case: tuple[nn.Module, Tensor, Any],
) -> None:
    model, inputs, losses = case
    params = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in params]
    step = step_of(model, losses, noise_multiplier=1.0)

    step(inputs[:0], TARGETS[:0])

    assert step.steps_taken == 1
    for p, old in zip(params, before, strict=True):
        assert not torch.equal(p, old)
        assert bool(torch.isfinite(p).all())


def test_a_frozen_batch_norm_is_a_constant_map_and_passes() -> None:
    model = nn.Sequential(nn.Linear(8, 11), nn.BatchNorm1d(11).requires_grad_(False))
    model.eval()

    found = flat_sum(step_of(model), random(12, 8), TARGETS)

    wanted = by_loop(model, random(12, 8), TARGETS, cross_entropy, 0.25)
    assert off(found, wanted) <= 1e-5


class Forked(nn.Module):
    """Two layers that one and the same gradient comes back to."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.left(x) + self.right(x))


@pytest.mark.parametrize(("rows", "isolated"), [(20, True), (300, True), (300, False)])
def test_a_gradient_that_two_layers_share_is_changed_by_neither(
    rows: int, isolated: bool
) -> None:
    """In float64, where a conversion to float64 is no copy."""
    torch.manual_seed(2)
    model, inputs = Forked().double(), random(rows, 6).double()
    targets = torch.arange(rows) % 3

    found = flat_sum(step_of(model, isolated=isolated), inputs, targets)

    assert off(found, by_loop(model, inputs, targets, cross_entropy, 0.25)) < 1e-10
