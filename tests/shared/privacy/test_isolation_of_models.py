"""Deep models and persons under cancelling weights: one unit moves its own part only.

Made-up weights alone would hide a leak: here the head takes equal features with weights
that sum to zero, times 2**40, so that only rounding decides each record's gradient.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from guilder_shared.privacy import isolation
from guilder_shared.privacy.bookkeeping import parts
from guilder_shared.privacy.bookkeeping.step import PrivateStep, make_private_step
from guilder_shared.privacy.bookkeeping.sums import Into
from guilder_shared.training import device

CLIP_NORM = 0.5


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(
        outputs.squeeze(-1), targets, reduction="none"
    )


def cancelling_head(width: int) -> nn.Linear:
    """Weights that sum to zero, exactly; equal features leave only their rounding."""
    head = nn.Linear(width, 1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        out = torch.round(torch.randn(width, generator=generator) * 2**20)
        out[-1] -= out.double().sum().float()
        head.weight.copy_(out[None] * 2.0**20)
        head.bias.zero_()
    assert float(head.weight.detach().double().sum()) == 0
    return head


def equal_rows(weight: Tensor) -> None:
    """Make all outputs of a layer the same."""
    with torch.no_grad():
        weight.copy_(weight[:1].expand_as(weight).clone())


def mlp() -> nn.Module:
    first = nn.Linear(30, 31)
    equal_rows(first.weight)
    nn.init.constant_(first.bias, 3.0)
    return nn.Sequential(first, nn.ReLU(), cancelling_head(31))


def narrow_mlp() -> nn.Module:
    first = nn.Linear(30, 10)
    equal_rows(first.weight)
    nn.init.constant_(first.bias, 3.0)
    return nn.Sequential(first, nn.ReLU(), cancelling_head(10))


def cnn() -> nn.Module:
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3)
    equal_rows(second.weight)
    assert second.bias is not None
    nn.init.constant_(second.bias, 1.0)
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(
        first, nn.ReLU(), second, nn.ReLU(), pool, nn.Flatten(), cancelling_head(16)
    )


class Attention(nn.Module):
    """One layer of attention, its output's features all equal."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        equal_rows(self.attention.out_proj.weight)
        nn.init.constant_(self.attention.out_proj.bias, 1.0)
        self.inner = nn.Linear(16, 16)
        equal_rows(self.inner.weight)
        nn.init.constant_(self.inner.bias, 1.0)
        self.head = cancelling_head(16)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.inner(x + mixed).mean(1))  # type: ignore[no-any-return]


class Sequence(nn.Module):
    """Tokens, a Linear layer on each place, and the mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 12)
        self.inner = nn.Linear(12, 24)
        equal_rows(self.inner.weight)
        nn.init.constant_(self.inner.bias, 1.0)
        self.head = cancelling_head(24)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.inner(self.tokens(ids)).mean(1))  # type: ignore[no-any-return]


def numbers(*shape: int) -> Callable[[int], Tensor]:
    generator = torch.Generator().manual_seed(1)
    return lambda num: torch.rand(num, *shape, generator=generator) * 2 - 1


def ids(num: int) -> Tensor:
    return torch.randint(20, (num, 7), generator=torch.Generator().manual_seed(1))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "mlp": (mlp, numbers(30)),
    "narrow mlp": (narrow_mlp, numbers(30)),
    "cnn": (cnn, numbers(3, 8, 8)),
    "attention": (Attention, numbers(5, 16)),
    "sequence": (Sequence, ids),
}


def step_of(
    model: nn.Module, *, isolated: bool = True, autocast: torch.dtype | None = None
) -> PrivateStep:
    return make_private_step(
        model,
        losses,
        None,
        clip_norm=CLIP_NORM,
        noise_multiplier=0.0,
        divisor=40.0,
        isolated=isolated,
        tune=False,
        autocast=autocast,
    )


def moves_of(
    step: PrivateStep, inputs: Tensor, targets: Tensor, units: Tensor
) -> list[float]:
    """How far the sum moves when one unit goes."""
    with device.one_thread():
        asked = None if len(torch.unique(units)) == len(units) else units
        whole = step.clipped_sum(inputs, targets, asked)
        found = []
        num = len(torch.unique(units))
        for unit in torch.unique(units)[[0, 1, 2, 7, num // 2, num - 2, num - 1]]:
            rest = units != unit
            some = None if asked is None else units[rest]
            less = step.clipped_sum(inputs[rest], targets[rest], some)
            found.append(float((whole - less).norm()))
    return found


def batch(make: Callable[[int], Tensor], num: int) -> tuple[Tensor, Tensor]:
    targets = (
        torch.rand(num, generator=torch.Generator().manual_seed(2)) < 0.3
    ).float()
    return make(num), targets


# As many rows as let the attack succeed without isolation, on one machine at least.
SIZES = {"mlp": 129, "narrow mlp": 701, "cnn": 70, "attention": 151, "sequence": 70}


@pytest.mark.parametrize("name", MODELS)
def test_no_weights_make_one_record_move_another_records_gradient(name: str) -> None:
    torch.manual_seed(3)
    model, make = MODELS[name]
    num = SIZES[name]
    inputs, targets = batch(make, num)

    moves = moves_of(step_of(model()), inputs, targets, torch.arange(num))

    assert max(moves) <= CLIP_NORM * (1 + 1e-9)
    assert max(moves) > 0.9 * CLIP_NORM  # the attack does reach the sum


@pytest.mark.parametrize("name", MODELS)
def test_no_weights_make_one_person_move_another_persons_gradient(name: str) -> None:
    torch.manual_seed(3)
    model, make = MODELS[name]
    counts = torch.tensor([1, 2, 3, 5, 9] * 5)
    persons = torch.repeat_interleave(counts)
    inputs, targets = batch(make, len(persons))

    moves = moves_of(step_of(model()), inputs, targets, persons)

    assert max(moves) <= CLIP_NORM * (1 + 1e-9)
    assert max(moves) > 0.9 * CLIP_NORM


@pytest.mark.parametrize("name", MODELS)
def test_in_bfloat16_one_record_moves_no_more_either(name: str) -> None:
    torch.manual_seed(3)
    model, make = MODELS[name]
    inputs, targets = batch(make, 40)
    step = step_of(model(), autocast=torch.bfloat16)

    moves = moves_of(step, inputs, targets, torch.arange(40))

    assert max(moves) <= CLIP_NORM * (1 + 1e-9)
    assert max(moves) > 0.9 * CLIP_NORM


def test_in_bfloat16_a_sum_is_about_that_of_float32() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 1)
    )
    inputs, targets = batch(numbers(3, 8, 8), 40)

    half = step_of(model, autocast=torch.bfloat16).clipped_sum(inputs, targets)

    whole = step_of(model).clipped_sum(inputs, targets)
    off = float((half - whole).norm() / whole.norm())
    assert 1e-6 < off < 2e-2  # it did compute in other numbers, and nearly the same


def test_without_isolation_the_same_weights_do_break_the_promise() -> None:
    """The attack is real: if this fails, the tests above prove nothing any more."""
    worst = {}
    for name, (model, make) in MODELS.items():
        torch.manual_seed(3)
        step = step_of(model(), isolated=False)
        inputs, targets = batch(make, SIZES[name])
        worst[name] = max(moves_of(step, inputs, targets, torch.arange(len(inputs))))

    # which ones depends on the machine's kernels
    assert max(worst.values()) > 1.5 * CLIP_NORM


def test_a_unit_of_more_rows_than_a_pass_is_clipped_as_one() -> None:
    torch.manual_seed(3)
    model = mlp()
    inputs, targets = batch(numbers(30), 900)
    persons = torch.tensor([0] * 800 + [1] * 60 + [2] * 40)

    in_parts = step_of(model).clipped_sum(inputs, targets, persons)

    step = step_of(model)
    step._height = 1024
    whole = step.clipped_sum(inputs, targets, persons)
    assert in_parts.numpy() == pytest.approx(whole.numpy(), abs=1e-6)
    assert float(whole.norm()) <= 3 * CLIP_NORM


def test_a_large_unit_with_one_bad_row_counts_exactly_zero() -> None:
    torch.manual_seed(3)
    step = step_of(mlp())
    inputs, targets = batch(numbers(30), 300)
    inputs[217, 4] = torch.nan

    total = step.clipped_sum(inputs, targets, torch.zeros(300, dtype=torch.int64))

    assert not bool(total.any())


def test_adding_in_float32_would_be_seen_by_the_trial_of_places() -> None:
    """What the trial compares is what enters the sum, for each kind of layer."""
    for make, rows in MODELS.values():
        step = step_of(make())
        inputs, targets = batch(rows, 64)

        found = isolation._entering(step.engine, losses, (inputs, targets))

        assert len(found) > len(step.engine.params) // 2
        assert all(len(x) == 64 for x in found)


def test_wide_sums_are_those_of_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_BLOCK_NUMBERS", 100)
    generator = torch.Generator().manual_seed(1)
    grads = torch.randn(37, 3, 111, generator=generator)
    factors = torch.rand(37, generator=generator, dtype=torch.float64)
    into = torch.zeros(3, 111, dtype=torch.float64)

    parts.add_weighted(factors, grads, Into(into), isolated=True)

    wanted = (grads.double() * factors[:, None, None]).sum(0)
    assert into.numpy() == pytest.approx(wanted.numpy(), rel=1e-12)
