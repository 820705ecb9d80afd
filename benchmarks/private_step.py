"""What a private step costs against a plain one, ours and Opacus' two engines.

    python benchmarks/private_step.py --json

All in one process, in turns, noise included. Figures are ratios of medians: of wall
time, and `_cpu` of the processor's time, which others at work on the machine move less.
By default on one thread of torch, as a turn trains: our noise is then drawn on a second
core, if there is one, so that the wall ratio is below that of the processor's time.
`_isolated` is the step with which a site answers a server's weights, where no row's
rounding may depend on its neighbours; Opacus has nothing like it. Memory is what a step
needs above what the process holds between steps, vectors kept for the next included.
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
from workloads.private_step_models import MODELS

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
    if engine in ("ours", "isolated"):
        step = make_private_step(
            model,
            PerRow(),
            optimizer,
            clip_norm=1.0,
            noise_multiplier=1.0,
            divisor=rows,
            isolated=engine == "isolated",
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
    engines = ["plain", "ours", "isolated", "ghost"]
    if name not in HOOKS_TOO_LARGE:
        engines.append("hooks")
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    steps = {engine: stepper(engine, name) for engine in engines}
    for _ in range(2):
        for step in steps.values():
            step()
    busy: dict[str, list[float]] = {engine: [] for engine in engines}
    repeats *= 10 if name == "mlp" else 1  # milliseconds each
    for _ in range(repeats):
        for engine, step in steps.items():
            start, started = time.perf_counter(), time.process_time()
            step()
            busy[engine].append(time.process_time() - started)
            times[engine].append(time.perf_counter() - start)
    wall = {engine: statistics.median(found) for engine, found in times.items()}
    used = {engine: statistics.median(found) for engine, found in busy.items()}
    memory = {
        engine: statistics.median(peak_bytes(steps[engine]) for _ in range(5))
        for engine in ("plain", "ours")
    }
    figures = {
        name: wall["ours"] / wall["plain"],
        f"{name}_cpu": used["ours"] / used["plain"],
        f"{name}_isolated": wall["isolated"] / wall["plain"],
        f"{name}_isolated_cpu": used["isolated"] / used["plain"],
        f"{name}_memory": memory["ours"] / max(1, memory["plain"]),
    }
    for engine in engines[3:]:
        figures[f"{name}_vs_{engine}"] = wall[engine] / wall["ours"]
        figures[f"{name}_vs_{engine}_cpu"] = used[engine] / used["ours"]
    figures[f"{name}_plain_ms"] = 1000 * wall["plain"]
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
    parser.add_argument("--repeats", type=int, default=5, help="of each engine")
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
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
