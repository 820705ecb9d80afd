"""How accurate private training is, and what it takes: ours, Opacus', and without.

    GUILDER_TEST_DATA=... python benchmarks/accuracy.py --json

Each task is trained on all its rows together: without privacy, by our engine and by
Opacus' hooks, at epsilon 1, 3 and 8. Both private engines have the same start, the same
Poisson draws, noise multiplier, clip norm, learning rate and steps; the second half of
the iterates is averaged. What others reached on the same data is a goal. Then two
studies run as `guilder simulate`, four sites with noise of their own.

`TASK_eE` is ours, `TASK_eE_opacus` theirs, means over seeds; `TASK_eE_margin` the lower
95 % bound of ours minus theirs, Holm-corrected over all; `TASK_times_faster` how many
times faster ours trains.
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import optimize, stats
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation
from workloads.accuracy_data import EPSILONS, STUDIES, TASKS, Task, is_here

from guilder_shared import metrics
from guilder_shared.privacy import accounting, make_private_step
from guilder_shared.privacy.events import gaussian_event
from guilder_shared.privacy.sampling import TurnKeys, poisson
from guilder_shared.study import Study
from guilder_simulations.engine import simulate

MARGIN = -0.01  # one point
SIMULATED = {"card_fraud": "card-fraud", "breast_cancer": "breast-cancer"}

Step = Callable[[Tensor, Tensor], None]


@dataclasses.dataclass(frozen=True)
class Way:
    """The numbers of a run: noise multiplier, learning rate, rows expected a step."""

    noise: float
    learning_rate: float
    batch: float


class Averaged:
    """The mean of a model's weights over the second half of its steps."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        self.model, self.skip = model, steps // 2
        self.sums = [torch.zeros_like(p) for p in model.parameters()]
        self.seen = 0

    @torch.no_grad()
    def add(self) -> None:
        """Look at the model after a step."""
        self.seen += 1
        if self.seen > self.skip:
            for total, p in zip(self.sums, self.model.parameters(), strict=True):
                total.add_(p)

    @torch.no_grad()
    def use(self) -> None:
        """Put the mean into the model."""
        for total, p in zip(self.sums, self.model.parameters(), strict=True):
            p.copy_(total / (self.seen - self.skip))


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """One loss a row: of a class, or of yes and no where there is one output."""
    if outputs.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(
            outputs.squeeze(1), targets, reduction="none"
        )
    return F.cross_entropy(outputs, targets.long(), reduction="none")


def noise_multiplier(task: Task, epsilon: float) -> float:
    """The least noise that keeps epsilon over all steps, from above."""

    def excess(log_noise: float) -> float:
        event = gaussian_event(math.exp(log_noise), sample_rate=task.rate)
        cost = accounting.epsilon([(event, task.steps)], task.delta, grid="coarse")
        return cost - epsilon

    return math.exp(optimize.brentq(excess, math.log(0.3), math.log(300), xtol=1e-3))


def private(task: Task, model: nn.Module, way: Way, keys: TurnKeys) -> Step:
    """A step of ours."""
    optimizer = torch.optim.SGD(model.parameters(), lr=way.learning_rate)
    return make_private_step(
        model,
        losses,
        optimizer,
        clip_norm=task.clip_norm,
        noise_multiplier=way.noise,
        divisor=way.batch,
        keys=keys,
    )


def opacus(task: Task, model: nn.Module, way: Way, keys: TurnKeys) -> Step:
    """A step by Opacus' hooks; its noise comes from torch's generator."""
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    torch.manual_seed(int.from_bytes(keys.key("noise", 0)[:4], "big"))
    wrapped = GradSampleModule(model)
    optimizer = DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=way.learning_rate),
        noise_multiplier=way.noise,
        max_grad_norm=task.clip_norm,
        expected_batch_size=way.batch,  # type: ignore[arg-type]
    )

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        losses(wrapped(inputs), targets).mean().backward()
        optimizer.step()

    return step


def plain(task: Task, model: nn.Module, _way: Way, _keys: TurnKeys) -> Step:
    """A step without privacy, by Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=task.plain_rate)

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        losses(model(inputs), targets).mean().backward()
        optimizer.step()

    return step


def train(
    engine: Callable[..., Step],
    task: Task,
    seed: int,
    noise: float = 0.0,
    learning_rate: float = 0.0,
) -> tuple[float, float]:
    """The metric on the test's rows, and the seconds that training took."""
    keys = TurnKeys.seeded(seed, site=engine.__name__, round_no=0)
    draws = TurnKeys.seeded(seed, site="draws", round_no=0)
    inputs, targets, test, truth = task.rows(seed)
    model = task.model(seed)
    way = Way(noise, learning_rate, task.rate * len(inputs))
    step, mean = engine(task, model, way, keys), Averaged(model, task.steps)
    start = time.perf_counter()
    for number in range(task.steps):
        drawn = poisson(len(inputs), task.rate, draws.key("sampling", number))
        rows = torch.from_numpy(drawn)
        step(inputs[rows], targets[rows])
        mean.add()
    seconds = time.perf_counter() - start
    mean.use()
    with torch.no_grad():
        outputs = model(test).numpy()
    if task.metric == "auc":
        return float(metrics.auc(outputs[:, 0], truth.numpy())), seconds
    return float((outputs.argmax(1) == truth.numpy()).mean()), seconds


def compare(name: str, task: Task) -> tuple[dict[str, float], dict[str, list[float]]]:
    """All figures of one task, and the differences ours minus theirs by key.

    Args:
        name: What the figures' names begin with.
        task: At least two seeds.
    """
    found: dict[str, float] = {}
    runs = [train(plain, task, seed)[0] for seed in range(min(10, task.seeds))]
    found[f"{name}_not_private"] = statistics.mean(runs)
    differences: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {"private": [], "opacus": []}
    for epsilon in EPSILONS:
        noise, key = noise_multiplier(task, epsilon), f"{name}_e{epsilon}"
        rate = task.learning_rate[epsilon]
        scores: dict[str, list[float]] = {"private": [], "opacus": []}
        for seed in range(task.seeds):
            for engine in (private, opacus):
                score, took = train(engine, task, seed, noise, rate)
                scores[engine.__name__].append(score)
                seconds[engine.__name__].append(took)
        found[key] = statistics.mean(scores["private"])
        found[f"{key}_opacus"] = statistics.mean(scores["opacus"])
        differences[key] = list(np.subtract(scores["private"], scores["opacus"]))
    took_s = {who: statistics.median(times) for who, times in seconds.items()}
    found[f"{name}_train_s"] = took_s["private"]
    found[f"{name}_times_faster"] = took_s["opacus"] / took_s["private"]
    found[f"{name}_seeds"] = task.seeds
    return found, differences


def margins(differences: dict[str, list[float]]) -> dict[str, float]:
    """Lower bounds of the mean differences that hold together with 95 %.

    Holm's correction: the bound furthest above the margin, in its own standard errors,
    has the smallest share of the 5 %, the next one a larger.
    """

    def statistic(one: Iterable[float]) -> float:
        values = np.array(list(one))
        error = float(values.std(ddof=1)) / math.sqrt(len(values))
        return (float(values.mean()) - MARGIN) / max(error, 1e-9)

    ordered = sorted(differences, key=lambda key: -statistic(differences[key]))
    bounds = {}
    for place, key in enumerate(ordered):
        values = np.array(differences[key])
        error = float(values.std(ddof=1)) / math.sqrt(len(values))
        quantile = stats.t.isf(0.05 / (len(ordered) - place), len(values) - 1)
        bounds[f"{key}_margin"] = float(values.mean()) - float(quantile) * error
    return bounds


def simulated(name: str) -> dict[str, float]:
    """The study as `guilder simulate` runs it, at each epsilon."""
    found = {}
    for epsilon in EPSILONS:
        study = Study.load(STUDIES / f"{SIMULATED[name]}.toml")
        whole = study.model_dump(mode="json", by_alias=True, exclude_none=True)
        whole["privacy"]["epsilon"] = float(epsilon)
        with tempfile.TemporaryDirectory() as out:
            run = simulate(Study.model_validate(whole), Path(out) / "run")
        found[f"{name}_simulated_e{epsilon}"] = run.metrics["auc"]
    return found


def tell(figures: dict[str, float]) -> None:
    """Progress, on stderr."""
    said = {key: round(value, 4) for key, value in figures.items()}
    print(said, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print; the last line on stdout is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="nothing else on stdout")
    parser.add_argument("--tasks", default=",".join(TASKS), help="comma-separated")
    parser.add_argument("--seeds", type=int, default=100, help="at most, of each task")
    parser.add_argument("--no-simulate", action="store_true", help="leave that out")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    load = os.getloadavg()[0]
    names = [name for name in options.tasks.split(",") if is_here(name)]
    figures: dict[str, float] = {}
    differences: dict[str, list[float]] = {}
    references: dict[str, float] = {}
    for name in names:
        torch.set_num_threads(2)  # features of texts
        task = TASKS[name]()
        task = dataclasses.replace(task, seeds=min(task.seeds, options.seeds))
        torch.set_num_threads(1)
        found, more = compare(name, task)
        tell(found)
        figures |= found
        differences |= more
        references |= {f"{name}_{key}": it for key, it in task.references.items()}
    figures |= margins(differences)
    for name in SIMULATED:
        if name in names and not options.no_simulate:
            found = simulated(name)
            tell(found)
            figures |= found
    print(json.dumps(report(names, figures, references, load)))


def report(
    names: list[str],
    figures: dict[str, float],
    references: dict[str, float],
    load: float,
) -> dict[str, Any]:
    """What `make bench` reads; what others reached is a goal."""
    goals = {key: {"at_least": reached} for key, reached in references.items()}
    for name in names:
        goals |= {f"{name}_e{e}_margin": {"at_least": MARGIN} for e in EPSILONS}
        goals[f"{name}_times_faster"] = {"at_least": 1.0}
    missed = [key for key, goal in goals.items() if figures[key] < goal["at_least"]]
    return {
        "benchmark": "accuracy",
        "figures": {key: round(value, 4) for key, value in figures.items()},
        "goals": goals,
        "missed": missed,
        "machine": {
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "load": round(load, 1),
            "threads": 1,
            **{package: version(package) for package in ("torch", "opacus")},
        },
    }


if __name__ == "__main__":
    main()
