"""What the check says of real modules, and what the fixer makes of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guilder_shared.privacy.bookkeeping.step import make_private_step
from guilder_shared.privacy.model_check import (
    Finding,
    bytes_per_row,
    check,
    num_trained,
    rules,
)
from guilder_shared.privacy.model_fix import Frozen, fix, groups_for

IMAGE = torch.zeros(0, 3, 8, 8)
VECTOR = torch.zeros(0, 8)


class Block(nn.Module):
    """A residual block as torchvision writes it: BatchNorm, in place, x += y."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.down = nn.Sequential(
            nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.down(x)
        return self.relu(y)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A small ResNet of torchvision's make."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
        )
        self.layer1, self.layer2 = Block(16, 16), Block(16, 24)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.stem(x)))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


class Centred(nn.Module):
    """A custom layer that takes the batch's mean away."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x - x.mean(0))  # type: ignore[no-any-return]


class NearestAbove(nn.Module):
    """Mixes rows only when one is far larger than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y * (x.abs().max() < 50)  # type: ignore[no-any-return]


class Gain(nn.Module):
    """A custom layer without a rule, which keeps rows apart."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


class Loose(nn.Module):
    """Uses a layer's weight without calling the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.unseen = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.seen(x) @ self.unseen.weight  # type: ignore[no-any-return]


class Tied(nn.Module):
    """One weight in two layers, as an encoder's input and output share theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(8, 8), nn.Linear(8, 8)
        self.out.weight = self.into.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.into(x).relu())  # type: ignore[no-any-return]


class Overwriting(nn.Module):
    """A residual that is added in place, onto what a layer has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.second(y)
        return z + self.relu(y)  # type: ignore[no-any-return]


class Counting(nn.Module):
    """Fills a buffer while it computes."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.linear(x)  # type: ignore[no-any-return]


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(f.error_id, f.layer) for f in findings]


def lstm() -> nn.Module:
    return nn.ModuleDict({"rnn": nn.LSTM(8, 8, batch_first=True)})


@pytest.mark.parametrize(
    ("make", "like", "wanted"),
    [
        (Centred, VECTOR, [("GLD-P062", "linear")]),
        (NearestAbove, VECTOR, [("GLD-P062", "model")]),
        (lstm, None, [("GLD-P054", "rnn")]),
        (Loose, VECTOR, [("GLD-P055", "model")]),
        (Overwriting, VECTOR, [("GLD-P053", "model")]),
        (Counting, VECTOR, [("GLD-P021", "model")]),
        (lambda: nn.Linear(8, 4).requires_grad_(False), None, [("GLD-P024", "model")]),
        (lambda: nn.Linear(9, 4), VECTOR, [("GLD-P063", "model")]),
        (
            lambda: nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.1)),
            VECTOR,
            [("GLD-P061", "1")],
        ),
        (Gain, VECTOR, []),
        (Tied, VECTOR, []),
        (lambda: nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.0)), VECTOR, []),
        (
            lambda: nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(inplace=True)),
            torch.zeros(0, 1, 5, 5, 5),
            [],
        ),
        (
            lambda: nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True),
            None,
            [("GLD-P054", "model")],
        ),
        (Gain, None, []),
    ],
)
def test_the_check_names_what_is_wrong_and_nothing_else(
    make: Callable[[], nn.Module],
    like: Tensor | None,
    wanted: list[tuple[str, str]],
) -> None:
    assert told(check(make(), like)) == wanted


def test_every_finding_of_a_resnet_is_told_at_once_by_its_path() -> None:
    model = ResNet()
    model.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(24, 5))  # type: ignore[assignment]

    found = check(model, IMAGE)

    norms = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert told(found)[: len(norms)] == [("GLD-P020", n) for n in norms]
    assert len(norms) == 7
    assert ("GLD-P061", "fc.0") in told(found)
    assert all(f.fixable and f.why and f.fix for f in found)


def test_rows_that_a_batch_norm_mixes_show_without_knowing_batch_norm() -> None:
    class Home(nn.Module):
        """BatchNorm under another name."""

        def __init__(self) -> None:
            super().__init__()
            self.linear, self.gain = nn.Linear(8, 4), nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            return (y - y.mean(0)) / (y.std(0) + 1e-3) * self.gain  # type: ignore[no-any-return]

    assert told(check(Home(), VECTOR)) == [("GLD-P062", "model")]


@pytest.mark.parametrize(
    "losses",
    [
        lambda outputs, _: (outputs - outputs.mean()).square().sum(1),
        lambda outputs, targets: outputs.square().sum(1) * targets.mean(),
        lambda outputs, _: outputs.square().sum(1) / len(outputs),
    ],
    ids=["outputs", "targets", "number of rows"],
)
def test_a_loss_that_looks_at_other_rows_is_found(losses: Any) -> None:
    found = check(nn.Linear(8, 4), VECTOR, torch.zeros(0), losses)

    assert told(found) == [("GLD-P062", "losses")]


def test_a_loss_of_each_row_is_not_taken_for_one_that_mixes() -> None:
    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.square().sum(1) * (1 + targets)

    assert check(nn.Linear(8, 4), VECTOR, torch.zeros(0), losses) == []


def test_the_check_leaves_the_model_as_it_was() -> None:
    model = Counting()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    state = torch.random.get_rng_state()

    check(model, VECTOR)

    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not model.linear._forward_hooks


def test_a_fixed_resnet_passes_and_trains_privately() -> None:
    fixed = fix(ResNet())

    assert check(fixed, IMAGE) == []
    step = make_private_step(
        fixed,
        lambda y, t: (y - t).square().sum(1),
        torch.optim.SGD(fixed.parameters(), 0.1),
        clip_norm=1.0,
        noise_multiplier=1.0,
        divisor=4.0,
    )
    step(torch.randn(4, 3, 8, 8), torch.zeros(4, 5))
    assert all(bool(p.isfinite().all()) for p in fixed.parameters())


def test_the_fixer_keeps_what_a_frozen_batch_norm_computes() -> None:
    torch.manual_seed(0)
    model = ResNet()
    model(torch.randn(32, 3, 8, 8))  # statistics of public data
    model.eval()
    rows = torch.randn(5, 3, 8, 8)

    frozen = fix(model, freeze_norms=True)

    assert torch.allclose(frozen(rows), model(rows), atol=1e-5)
    assert check(frozen, IMAGE) == []
    assert sum(isinstance(m, Frozen) for m in frozen.modules()) == 7


def test_the_fixer_leaves_its_argument_alone_and_keeps_names_and_weights() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(inplace=True), nn.Dropout(0.5))
    model.append(nn.BatchNorm1d(4))

    fixed = fix(model)

    assert isinstance(model[3], nn.BatchNorm1d)
    assert model[1].inplace
    assert [n for n, _ in fixed.named_parameters()] == [
        n for n, _ in model.named_parameters()
    ]
    same = dict(fixed.named_parameters())["0.weight"]
    assert torch.equal(same, dict(model.named_parameters())["0.weight"])
    assert check(fixed, VECTOR) == []


def test_a_group_norm_in_batch_norms_place_still_tells_rows_apart() -> None:
    """One group a channel would be all zeros for a row of single numbers."""
    torch.manual_seed(0)
    fixed: Any = fix(nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16)))

    out = fixed(torch.randn(10, 8))

    assert float(out.detach().std(0).min()) > 0.1


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (3, 1), (16, 4), (24, 6), (64, 16), (512, 32)]
)
def test_groups_divide_the_channels_and_are_never_single_numbers(
    channels: int, groups: int
) -> None:
    assert groups_for(channels) == groups


def test_fixing_what_has_no_fix_leaves_it_to_the_check() -> None:
    assert told(check(fix(lstm()))) == [("GLD-P054", "rnn")]


def test_a_norm_alone_is_fixed_too() -> None:
    assert isinstance(fix(nn.BatchNorm2d(8)), nn.GroupNorm)


def test_the_rules_name_each_trained_layer_and_its_numbers() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), Gain(), nn.Linear(8, 2))
    model[0].requires_grad_(False)

    found = rules(model)

    assert [(r.layer, r.kind, r.num_trained) for r in found] == [
        ("2", "Gain", 8),
        ("3", "Linear", 18),
    ]
    assert [r.rule for r in found] == ["torch.func", "LinearPart"]
    assert [r.shared for r in rules(Tied())] == [True, True]
    assert num_trained(model) == 26
    assert num_trained(Tied()) == 64 + 8 + 8


def test_memory_grows_with_what_a_layer_keeps_of_a_row() -> None:
    small = bytes_per_row(nn.Linear(8, 8), VECTOR, None)
    large = bytes_per_row(nn.Linear(8, 800), VECTOR, None)

    assert 0 < small < large < 100 * 4 * 8 * 900
