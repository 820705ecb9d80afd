"""What each switch of `[speed]` costs: a private step's processor time and memory.

Every figure is a ratio to the same step without the switch, both in one process, one
after the other. There is no goal: a switch is for whoever finds it worth its price.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from guilder_shared.privacy import make_private_step
from guilder_shared.privacy.bookkeeping.step import PrivateStep

sys.path.insert(0, str(Path(__file__).parent / "workloads"))
from private_step_models import MODELS  # type: ignore[import-not-found]

IMAGES = ("cnn", "unet", "resnet18")
Step = Callable[[], None]


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """One loss a row, of classes or of a mask."""
    if outputs.dim() == 2:
        return nn.functional.cross_entropy(outputs, targets, reduction="none")
    each = nn.functional.binary_cross_entropy_with_logits(
        outputs, targets, reduction="none"
    )
    return each.flatten(1).mean(1)


def stepper(name: str, switch: str = "") -> tuple[PrivateStep, Step]:
    """An isolated step, as turns take it, with one switch on."""
    torch.manual_seed(0)
    model, (inputs, targets) = MODELS[name]()
    if switch == "channels_last":
        model.register_forward_pre_hook(
            lambda _, rows: (rows[0].clone(memory_format=torch.channels_last),)
        )
    step = make_private_step(
        model,
        losses,
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01),
        clip_norm=1.0,
        noise_multiplier=1.0,
        divisor=len(inputs),
        isolated=True,
        checkpoint=switch == "checkpoint",
    )
    if switch == "deterministic":
        return step, lambda: _repeatable(lambda: step(inputs, targets))
    return step, lambda: step(inputs, targets)


def _repeatable(step: Step) -> None:
    from guilder_shared.training import device

    with device.turn():
        step()


def peak_bytes(step: Step) -> int:
    """The most that torch holds at once, from its allocator's own record."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as record:
        step()
    now = most = 0
    assert record.profiler is not None
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def measure(name: str, repeats: int) -> dict[str, float]:
    """Every switch on one model, in turns."""
    switches = ["", "deterministic", "checkpoint"]
    switches += ["channels_last"] if name in IMAGES else []
    steps = {switch: stepper(name, switch)[1] for switch in switches}
    busy: dict[str, list[float]] = {switch: [] for switch in switches}
    for _ in range(2):
        for step in steps.values():
            step()
    for _ in range(repeats * (10 if name == "mlp" else 1)):
        for switch, step in steps.items():
            started = time.process_time()
            step()
            busy[switch].append(time.process_time() - started)
    used = {switch: statistics.median(found) for switch, found in busy.items()}
    figures = {f"{name}_{switch}_cpu": used[switch] / used[""] for switch in used}
    figures.pop(f"{name}__cpu")
    memory = peak_bytes(steps["checkpoint"]) / max(1, peak_bytes(steps[""]))
    figures[f"{name}_checkpoint_memory"] = memory
    print(figures, file=sys.stderr, flush=True)
    return figures


def main() -> None:
    """Measure and print; the last line on stdout is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="nothing else on stdout")
    parser.add_argument("--repeats", type=int, default=7, help="of each switch")
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for name in options.models.split(","):
        figures |= measure(name, options.repeats)
    machine = {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 1),
        "torch": version("torch"),
    }
    rounded = {key: round(value, 3) for key, value in figures.items()}
    report = {"benchmark": "speed", "figures": rounded, "goals": {}, "missed": []}
    print(json.dumps(report | {"machine": machine}))


if __name__ == "__main__":
    main()
