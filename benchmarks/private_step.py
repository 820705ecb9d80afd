"""What a private step costs against a plain one, ours and Opacus' two engines.

    python benchmarks/private_step.py --json

All in one process, in turns, noise included. Figures are ratios of medians; `_cpu` is
that of the processor's time, which others at work on the machine move less; memory is
what a step needs above what the process holds between steps.
"""

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from guilder_shared.privacy import make_private_step

GOALS = {
    "lora": 1.10,
    "cnn": 1.25,
    "unet": 1.25,
    "encoder": 1.30,
    "mlp": 1.30,
    "resnet18": 1.35,
}
FLOORS = {
    "lora": 1.15,
    "cnn": 1.40,
    "unet": 1.35,
    "encoder": 1.45,
    "mlp": 1.45,
    "resnet18": 1.60,
}
HOOKS_TOO_LARGE = ("resnet18",)  # 1.4 GB of per-sample gradients a step

Batch = tuple[Tensor, Tensor]
Losses = Callable[[Tensor, Tensor], Tensor]


def mlp() -> tuple[nn.Module, Batch]:
    """A table's model: 30 columns, two hidden layers of 256."""
    layers = [nn.Linear(30, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(256, 2))
    return model, (torch.randn(256, 30), torch.randint(2, (256,)))


def cnn() -> tuple[nn.Module, Batch]:
    """The classic one: 32 and 64 channels, then 1024; 4.3 million numbers."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4096, 1024),
        nn.ReLU(),
        nn.Linear(1024, 2),
    )
    return model, (torch.randn(64, 3, 32, 32), torch.randint(2, (64,)))


class Block(nn.Module):
    """A residual block with GroupNorm."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(32, after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(32, after)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            narrow = nn.Conv2d(before, after, 1, stride, bias=False)
            self.short = nn.Sequential(narrow, nn.GroupNorm(32, after))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, before, h, w) to (rows, after, h / stride, w / stride)."""
        y = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(y)) + self.short(x))


def resnet18() -> tuple[nn.Module, Batch]:
    """ResNet-18 for small images, GroupNorm throughout; 11 million numbers."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False)]
    layers += [nn.GroupNorm(32, 64), nn.ReLU()]
    before = 64
    for after, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(before, after, stride), Block(after, after, 1)]
        before = after
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(*layers), (
        torch.randn(32, 3, 32, 32),
        torch.randint(10, (32,)),
    )


def _double(before: int, after: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width in (before, after):
        layers += [nn.Conv2d(width, after, 3, padding=1)]
        layers += [nn.GroupNorm(8, after), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Three levels of 16, 32 and 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([_double(1, 16), _double(16, 32), _double(32, 64)])
        self.up = nn.ModuleList([_double(96, 32), _double(48, 16)])
        self.out = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, 1, h, w) to (rows, 1, h, w)."""
        first = self.down[0](x)
        second = self.down[1](F.max_pool2d(first, 2))
        third = self.down[2](F.max_pool2d(second, 2))
        wide = F.interpolate(third, scale_factor=2.0, mode="nearest")
        second = self.up[0](torch.cat([wide, second], 1))
        wide = F.interpolate(second, scale_factor=2.0, mode="nearest")
        return self.out(self.up[1](torch.cat([wide, first], 1)))  # type: ignore[no-any-return]


def unet() -> tuple[nn.Module, Batch]:
    """Segmentation of 64 x 64 pixels."""
    masks = (torch.randn(8, 1, 64, 64) > 0).float()
    return UNet(), (torch.randn(8, 1, 64, 64), masks)


class Low(nn.Module):
    """A frozen Linear layer and a trained one of rank 8."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.base = nn.Linear(before, after).requires_grad_(False)
        self.down = nn.Linear(before, 8, bias=False)
        self.up = nn.Linear(8, after, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., before) to (..., after)."""
        return self.base(x) + self.up(self.down(x))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """One layer of an encoder, 4 heads."""

    def __init__(self, width: int, linear: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = linear(width, 3 * width), linear(width, width)
        self.wide, self.narrow = linear(width, 4 * width), linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, places, width) to the same."""
        rows, places, width = x.shape
        mixed = self.mix(self.norm1(x)).view(rows, places, 3, 4, width // 4)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / math.sqrt(width // 4)
        found = (torch.softmax(scores, -1) @ value).transpose(1, 2)
        x = x + self.out(found.reshape(rows, places, width))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Two layers of width 128 on 64 tokens of 5000."""

    def __init__(self, linear: Callable[[int, int], nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(5000, 128), nn.Embedding(64, 128)
        self.layers = nn.Sequential(Layer(128, linear), Layer(128, linear))
        self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 4)

    def forward(self, ids: Tensor) -> Tensor:
        """(rows, places) to (rows, 4)."""
        places = torch.arange(ids.shape[1]).repeat(ids.shape[0], 1)
        x = self.layers(self.tokens(ids) + self.positions(places))
        return self.head(self.norm(x).mean(1))  # type: ignore[no-any-return]


def encoder() -> tuple[nn.Module, Batch]:
    """Text, all trained."""
    return Encoder(), (torch.randint(5000, (32, 64)), torch.randint(4, (32,)))


def lora() -> tuple[nn.Module, Batch]:
    """Text, adapters of rank 8 and the head trained."""
    model = Encoder(Low)
    for name, p in model.named_parameters():
        p.requires_grad_(".down." in name or ".up." in name or name.startswith("head."))
    return model, (torch.randint(5000, (32, 64)), torch.randint(4, (32,)))


MODELS = {f.__name__: f for f in (mlp, cnn, unet, encoder, lora, resnet18)}


class PerRow(nn.Module):
    """One loss a row, or their mean: what all engines are given."""

    def __init__(self, reduction: str = "none") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(rows, ...) to (rows,), or to a number."""
        if outputs.dim() == 2:
            losses = F.cross_entropy(outputs, targets, reduction="none")
        else:
            each = F.binary_cross_entropy_with_logits(
                outputs, targets, reduction="none"
            )
            losses = each.flatten(1).mean(1)
        return losses if self.reduction == "none" else losses.mean()


def stepper(engine: str, name: str) -> Callable[[], None]:
    """A step of this model by this engine, on one batch."""
    torch.manual_seed(0)
    model, (inputs, targets) = MODELS[name]()
    rows = len(inputs)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9)
    if engine == "ours":
        step = make_private_step(
            model,
            PerRow(),
            optimizer,
            clip_norm=1.0,
            noise_multiplier=1.0,
            divisor=rows,
        )
        return lambda: step(inputs, targets)
    if engine == "plain":
        return lambda: _plain(model, optimizer, inputs, targets)
    return _opacus(engine, model, optimizer, inputs, targets)


def _plain(model: nn.Module, optimizer: Any, inputs: Tensor, targets: Tensor) -> None:
    optimizer.zero_grad()
    PerRow("mean")(model(inputs), targets).backward()
    optimizer.step()


def _opacus(
    engine: str, model: nn.Module, optimizer: Any, inputs: Tensor, targets: Tensor
) -> Callable[[], None]:
    from opacus.grad_sample import (
        GradSampleModule,
        GradSampleModuleFastGradientClipping,
    )
    from opacus.optimizers import DPOptimizer
    from opacus.optimizers.optimizer_fast_gradient_clipping import (
        DPOptimizerFastGradientClipping,
    )
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    settings = {
        "noise_multiplier": 1.0,
        "max_grad_norm": 1.0,
        "expected_batch_size": len(inputs),
    }
    losses: Any = PerRow("mean")
    if engine == "hooks":
        wrapped: Any = GradSampleModule(model)
        private: Any = DPOptimizer(optimizer, **settings)
    else:
        wrapped = GradSampleModuleFastGradientClipping(
            model, max_grad_norm=1.0, use_ghost_clipping=True
        )
        private = DPOptimizerFastGradientClipping(optimizer, **settings)
        losses = DPLossFastGradientClipping(wrapped, private, losses)

    def step() -> None:
        private.zero_grad()
        losses(wrapped(inputs), targets).backward()
        private.step()

    return step


def resident_bytes(key: str) -> int:
    """A figure of this process's memory, from the kernel."""
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) * 1024


def peak_bytes(step: Callable[[], None]) -> int:
    """What one step needs above what is held between steps."""
    step()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident_bytes("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    step()
    return resident_bytes("VmHWM") - before


def measure(name: str, repeats: int) -> dict[str, float]:
    """All engines on one model, in turns."""
    engines = ["plain", "ours", "ghost"]
    if name not in HOOKS_TOO_LARGE:
        engines.append("hooks")
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    steps = {engine: stepper(engine, name) for engine in engines}
    for _ in range(2):
        for step in steps.values():
            step()
    busy: dict[str, list[float]] = {engine: [] for engine in engines}
    for _ in range(repeats):
        for engine, step in steps.items():
            start, started = time.perf_counter(), time.process_time()
            step()
            busy[engine].append(time.process_time() - started)
            times[engine].append(time.perf_counter() - start)
    median = {engine: statistics.median(found) for engine, found in times.items()}
    figures = {name: median["ours"] / median["plain"]}
    for engine in engines[2:]:
        figures[f"{name}_vs_{engine}"] = median[engine] / median["ours"]
    figures[f"{name}_cpu"] = statistics.median(busy["ours"]) / statistics.median(
        busy["plain"]
    )
    memory = {engine: peak_bytes(steps[engine]) for engine in ("plain", "ours")}
    figures[f"{name}_memory"] = memory["ours"] / max(1, memory["plain"])
    figures[f"{name}_plain_ms"] = 1000 * median["plain"]
    said = {key: round(value, 2) for key, value in figures.items()}
    print(said, file=sys.stderr, flush=True)
    return figures


def goals(names: list[str]) -> dict[str, dict[str, float]]:
    """What to reach, for the models measured."""
    found: dict[str, dict[str, float]] = {}
    for name in names:
        found[name] = {"at_most": GOALS[name]}
        found[f"{name}_vs_ghost"] = {"at_least": 1.6}
        found[f"{name}_memory"] = {"at_most": 1.5}
    return found


def main() -> None:
    """Measure and print; the last line on stdout is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="nothing else on stdout")
    parser.add_argument("--repeats", type=int, default=7, help="of each engine")
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    names = options.models.split(",")
    figures: dict[str, float] = {}
    for name in names:
        figures |= measure(name, options.repeats)
    wanted = goals(names)
    missed = [
        key
        for key, goal in wanted.items()
        if figures[key] > goal.get("at_most", math.inf)
        or figures[key] < goal.get("at_least", 0.0)
    ]
    report = {
        "benchmark": "private_step",
        "figures": {key: round(value, 3) for key, value in figures.items()},
        "goals": wanted,
        "missed": missed,
        "floors_missed": [n for n in names if figures[n] > FLOORS[n]],
        "machine": {
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "load": round(os.getloadavg()[0], 1),
            "threads": options.threads,
            **{package: version(package) for package in ("torch", "opacus")},
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
