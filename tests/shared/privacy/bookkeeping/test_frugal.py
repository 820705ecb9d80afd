"""Activations computed again: the same sum to the bit, and less memory for it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from guilder_shared import tasks
from guilder_shared.errors import PlanError
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.privacy.bookkeeping.engine import BookKeeping
from guilder_shared.privacy.bookkeeping.parts import Units
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import device, selftest
from guilder_shared.training.fit import fit

STUDIES = Path(__file__).parents[4] / "simulations" / "studies"
SMALL = ("data.height=16", "data.width=16")
MODELS = {
    "cnn": ("transaction-images", ("model.width=8",)),
    "unet": ("lesions", SMALL),
    "resnet18": ("transaction-images", ('model={name="resnet18"}', *SMALL)),
    "encoder": (
        "customer-intents",
        ('model={name="encoder",width=32}', "data.max_tokens=12"),
    ),
    "lora": (
        "customer-intents",
        ('model={name="encoder",width=32,train="lora",rank=2}', "data.max_tokens=12"),
    ),
}
CLIP_NORM = 0.5


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    with device.turn():
        yield


def study(name: str) -> Study:
    file, overrides = MODELS[name]
    return Study.load(STUDIES / f"{file}.toml", overrides)


def batch(of: Study, num: int) -> tuple[Tensor, Tensor]:
    row, generator = registry.inputs(of), torch.Generator().manual_seed(1)
    if row.tokens:
        inputs = torch.randint(1, row.tokens, (num, *row.shape), generator=generator)
    else:
        inputs = torch.rand(num, *row.shape, generator=generator) * 2 - 1
    shape = (num, *row.shape[1:]) if row.mask else (num,)
    below = 2 if row.mask else row.classes
    return inputs, torch.randint(below, shape, generator=generator).float()


def clipped(
    model: nn.Module,
    losses: Callable[[Any, Any], Tensor],
    rows: tuple[Tensor, Tensor],
    units: Units,
    *,
    checkpoint: bool,
) -> tuple[Tensor, Tensor, int]:
    """The sum, how much of each unit counted, and how many blocks ran again."""
    engine = BookKeeping(model, CLIP_NORM, isolated=True, checkpoint=checkpoint)
    total = engine.zeros()
    counted = engine.add_clipped(lambda: losses(model(rows[0]), rows[1]), total, units)
    num_blocks = len(engine._again)
    engine.close()
    return total, counted, num_blocks


@pytest.mark.parametrize("of_row", [None, [0, 0, 1, 2, 2, 2]])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "resnet18" else [])
        for name in MODELS
    ],
)
def test_every_model_gives_the_same_bits(name: str, of_row: list[int] | None) -> None:
    of = study(name)
    model = registry.load(registry.initial(of), of)
    losses, rows = tasks.recipe(of.study.recipe).losses, batch(of, 6)
    units = Units(6) if of_row is None else Units(3, torch.tensor(of_row))

    kept, weights, _ = clipped(model, losses, rows, units, checkpoint=False)
    again, same, num_blocks = clipped(model, losses, rows, units, checkpoint=True)

    assert float(kept.norm()) > 0
    assert torch.equal(kept, again)
    assert torch.equal(weights, same)
    assert (num_blocks > 1) == (name != "cnn")  # which is one block


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.narrow(torch.tanh(self.wide(x)))
        return found


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.sum((1, 2)) - targets).square()


def deep(num: int = 12) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(*(Block(16) for _ in range(num)), nn.Linear(16, 16))


def peak_bytes(checkpoint: bool) -> int:
    """The most that torch held at once, from its allocator's own record."""
    model, rows = deep(), (torch.rand(64, 32, 16), torch.rand(64))
    engine = BookKeeping(model, CLIP_NORM, isolated=True, checkpoint=checkpoint)
    total, units = engine.zeros(), Units(64)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as record:
        engine.add_clipped(lambda: squares(model(rows[0]), rows[1]), total, units)
    engine.close()
    now = most = 0
    assert record.profiler is not None
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def test_a_deep_model_needs_a_fraction_of_the_memory() -> None:
    kept, again = peak_bytes(checkpoint=False), peak_bytes(checkpoint=True)

    # 12 blocks' inputs and gradients against one block's and its activations
    assert 0 < again < kept / 2


def test_a_unit_that_is_not_finite_counts_zero_there_too() -> None:
    model, rows = deep(4), (torch.rand(5, 3, 16), torch.rand(5))
    rows[0][2] = torch.nan
    kept = torch.tensor([0, 1, 3, 4])

    total, counted, _ = clipped(model, squares, rows, Units(5), checkpoint=True)
    without, _, _ = clipped(
        model, squares, (rows[0][kept], rows[1][kept]), Units(4), checkpoint=True
    )

    assert counted[2] == 0
    assert float((total - without).norm()) <= 1e-6 * CLIP_NORM


class Tied(nn.Module):
    """One parameter in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Block(8), Block(8)
        self.two.wide.weight = self.one.wide.weight

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.two(self.one(x))
        return found


def test_tied_weights_are_taken_together() -> None:
    torch.manual_seed(4)
    model, rows = Tied(), (torch.rand(5, 3, 8), torch.rand(5))

    kept, *_ = clipped(model, squares, rows, Units(5), checkpoint=False)
    again, _, num_blocks = clipped(model, squares, rows, Units(5), checkpoint=True)

    assert torch.equal(kept, again)
    assert num_blocks == 0


class Twice(nn.Module):
    """One block, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Block(8), Block(8)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.one(self.two(self.one(x)))
        return found


def test_a_layer_used_twice_is_refused_and_never_clipped_by_half() -> None:
    with pytest.raises(PlanError) as caught:
        clipped(
            Twice(),
            squares,
            (torch.rand(5, 3, 8), torch.rand(5)),
            Units(5),
            checkpoint=True,
        )

    assert caught.value.error_id == "GLD-P120"


def test_the_model_is_as_before_when_the_engine_is_closed() -> None:
    model = deep(3)
    engine = BookKeeping(model, CLIP_NORM, isolated=True, checkpoint=True)
    inside = ["forward" in vars(block) for block in model.children()]
    engine.close()

    assert inside == [True, True, True, False]
    assert not any("forward" in vars(block) for block in model.modules())


def test_a_whole_turn_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    of = study("encoder")
    inputs, targets = batch(of, 12)
    examples = Examples(inputs.numpy(), targets.numpy())
    schedule = of.training.model_copy(update={"local_steps": 2, "sample_rate": 0.5})
    of = of.model_copy(update={"training": schedule})
    found = []

    for checkpoint in (False, True):
        monkeypatch.setattr(device, "_speed", device.Speed(checkpoint=checkpoint))
        update = fit(
            registry.initial(of),
            of,
            Plan(1.0, of.training.rounds + of.aggregation.spare_turns, 1e-3),
            examples,
            public_size=12,
            keys=TurnKeys.seeded(1, site="a", round_no=1),
        )
        found.append(np.concatenate([update[n].reshape(-1) for n in sorted(update)]))

    assert found[0].tobytes() == found[1].tobytes()
    assert np.abs(found[0]).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "encoder"])
def test_the_self_test_passes_where_activations_are_computed_again(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_speed", device.Speed(checkpoint=True))
    of = study(name)

    turns = of.training.rounds + of.aggregation.spare_turns
    passed = selftest.run(of, Plan(1.5, turns, 1e-3), public_size=200)

    assert passed.checks == selftest.CHECKS
