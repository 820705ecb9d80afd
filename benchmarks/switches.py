"""More accuracy at the same epsilon: what each switch of a study does to its AUC.

Private training of the shipped studies, each switch against the study as it ships, at
the same epsilon, delta, rounds and steps. Seeds deal rows, batches and noise; the same
seed deals the same rows to every switch, so differences are taken seed by seed. Without
ledgers and messages: the same turns and the same sum, nothing else.

The learning rates that belong to a switch were chosen on seeds 101 and 102, which are
not among those that are reported.
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from typing import Any

from guilder_server import aggregate
from guilder_shared import tables
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.average import average
from guilder_shared.training.evaluate import evaluate
from guilder_shared.training.fit import fit
from guilder_simulations import partition, synthetic
from guilder_simulations.studies import path_of

SWITCHES: dict[str, dict[str, tuple[str, ...]]] = {
    "card-fraud": {
        "plain": (),
        "momentum": ("training.momentum=0.9", "training.learning_rate=1.6"),
        "adam": ("training.optimizer=adam", "training.learning_rate=0.01"),
        "average": ("training.average=0.7",),
        "copies": ("training.augment={copies=4, mask=0.1}",),
        "moving": ("training.adaptive_clip={}",),
        "high": ("privacy.clip_norm=4",),
        "high+moving": ("privacy.clip_norm=4", "training.adaptive_clip={}"),
        "low": ("privacy.clip_norm=0.01",),
        "low+moving": ("privacy.clip_norm=0.01", "training.adaptive_clip={}"),
    },
    "breast-cancer": {
        "plain": (),
        "average": ("training.average=0.9",),
        "average+rate": ("training.average=0.9", "training.learning_rate=16"),
        "copies": ("training.augment={copies=4, jitter=0.1}",),
    },
}
Dealt = tuple[dict[str, Examples], Examples, dict[str, int]]


def dealt(study: Study) -> Dealt:
    """Each site's rows, the hold-out and public sizes, by the study's seed."""
    assert study.simulation is not None
    source = synthetic.generate(study.simulation.source, study.simulation.seed)
    share = study.evaluation.rows
    sites, holdout, sizes = partition.split(source, study.simulation, share)
    rows = {name: tables.encode(t, study.site_contract) for name, t in sites.items()}
    return rows, tables.encode(holdout, study.public_contract), sizes


def auc(study: Study, plan: Plan, given: Dealt) -> float:
    """The AUC of what the study publishes after its last round."""
    rows, holdout, sizes = given
    assert study.simulation is not None
    weights, seed = aggregate.weigh(sizes), study.simulation.seed
    model = published = registry.initial(study)
    for round_no in range(1, study.training.rounds + 1):
        total = aggregate.empty(model)
        for site, examples in rows.items():
            keys = TurnKeys.seeded(seed, site=site, round_no=round_no)
            size = sizes[site]
            update = fit(model, study, plan, examples, public_size=size, keys=keys)
            aggregate.fold(total, update, weight=weights[site], site=site)
        model = aggregate.step(model, total)
        decay = study.training.average
        published = average(published, model, round_no, decay) if decay else model
    return evaluate(published, study, holdout)["auc"]


def measure(name: str, epsilon: float, seeds: int, only: list[str]) -> dict[str, Any]:
    """Figures of one study: mean AUC, and mean difference with its standard error."""
    found: dict[str, list[float]] = {}
    promise = f"privacy.epsilon={epsilon}"
    plan = accounting.solve(Study.load(path_of(name), (promise,)))
    for seed in range(1, seeds + 1):
        for switch, overrides in SWITCHES[name].items():
            if only and switch not in only:
                continue
            dealing = (promise, f"simulation.seed={seed}")
            study = Study.load(path_of(name), (*dealing, *overrides))
            start = time.monotonic()
            found.setdefault(switch, []).append(auc(study, plan, dealt(study)))
            took = time.monotonic() - start
            said = f"{name} {epsilon:g} {seed} {switch}: {found[switch][-1]:.5f}"
            print(f"{said}, {took:.0f} s", file=sys.stderr, flush=True)
    return figures(f"{name}_{epsilon:g}", found)


def figures(study: str, found: dict[str, list[float]]) -> dict[str, Any]:
    """Mean, and mean difference from "plain" with its standard error, by switch."""
    told: dict[str, Any] = {}
    for switch, values in found.items():
        told[f"{study}_{switch}"] = round(statistics.mean(values), 5)
        if switch == "plain" or "plain" not in found:
            continue
        gains = [a - b for a, b in zip(values, found["plain"], strict=True)]
        told[f"{study}_{switch}_gain"] = round(statistics.mean(gains), 5)
        error = statistics.stdev(gains) / math.sqrt(len(gains))
        told[f"{study}_{switch}_error"] = round(error, 5)
    return told


def main() -> None:
    """Print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="always on")
    parser.add_argument("--seeds", type=int, default=5, help="2 or more")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[3.0])
    parser.add_argument("--study", choices=SWITCHES, nargs="+", default=[*SWITCHES])
    parser.add_argument("--only", nargs="+", default=[], help="switches; all if absent")
    asked = parser.parse_args()
    told: dict[str, Any] = {}
    for name in asked.study:
        for epsilon in asked.epsilon:
            told |= measure(name, epsilon, asked.seeds, asked.only)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
    machine += f"Python {platform.python_version()}, torch {version('torch')}"
    result = {"benchmark": "switches", "figures": told, "goals": {}, "missed": []}
    print(json.dumps(result | {"machine": machine}))


if __name__ == "__main__":
    main()
