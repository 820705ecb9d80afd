"""Membership inference by loss: can the finished model tell who trained it?

The weakest attacker there is: he has the last model and some rows, and takes a row
with a small loss for one that was trained on. The study is simulated, by the same
turns as deployed, on made-up or published rows only. This module bounds no epsilon.

Review, mathematics: rows are held out by their own hash, which tells nothing of them.
Review, crash order: a simulation in a folder that is removed; no site is asked.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from guilder_shared import metrics, tables, tasks
from guilder_shared.models import features, registry
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_simulations import engine, partition, synthetic

if TYPE_CHECKING:
    import pyarrow as pa

Numbers = NDArray[np.float64]

RATES = (0.01, 0.001)  # of false positives
MOST_ROWS = 10_000  # of each kind; the first there are
_ROWS_PER_PASS = 64


@dataclass(frozen=True)
class Membership:
    """How well the loss tells members from strangers.

    Attributes:
        auc: Chance that a member has the smaller loss; 0.5 tells nothing.
        auc_interval: 95 %, by the formula of Hanley and McNeil 1982.
        caught: Share of members found, by the share of strangers that are mistaken for
            one; None where strangers are too few to say.
        members: Rows that were trained on.
        strangers: Rows that were held out.
    """

    auc: float
    auc_interval: tuple[float, float]
    caught: dict[float, float | None]
    members: int
    strangers: int


def why_not(study: Study) -> str:
    """Why no attack is tried on this study's rows; empty where one is."""
    if study.simulation is None:
        return "the study has no [simulation] part"
    if study.simulation.source not in synthetic.GENERATORS:
        return "its source is a file, which may hold people's rows"
    return ""


def attack(study: Study) -> Membership:
    """Simulate the study on its made-up or published rows and attack the model.

    Args:
        study: One that `why_not` says nothing against.

    Raises:
        PlanError, DataError, RunFailed: As `engine.simulate`.
    """
    assert why_not(study) == ""
    study = _with_holdout(study)
    with tempfile.TemporaryDirectory(prefix="guilder-audit-") as folder:
        run = engine.simulate(study, Path(folder) / "run")
    members, strangers = _rows(study)
    return judge(
        row_losses(run.model, study, members), row_losses(run.model, study, strangers)
    )


def judge(members: Numbers, strangers: Numbers) -> Membership:
    """What losses tell.

    Args:
        members: Loss of each row trained on, shape (rows,).
        strangers: Of each row held out, shape (rows,).
    """
    every = -np.concatenate([members, strangers])
    truth = np.repeat([1.0, 0.0], [len(members), len(strangers)])
    auc = metrics.auc(every, truth)
    half = 1.96 * _spread(auc, len(members), len(strangers))
    caught = {rate: _caught(members, strangers, rate) for rate in RATES}
    interval = max(0.0, auc - half), min(1.0, auc + half)
    return Membership(auc, interval, caught, len(members), len(strangers))


def row_losses(weights: registry.Weights, study: Study, examples: Examples) -> Numbers:
    """The loss that is trained, of each public row, shape (rows,)."""
    import torch

    examples = features.prepare(examples, study)
    module, losses = registry.load(weights, study), tasks.recipe(study.study.recipe)
    module.eval()
    found = [np.empty(0)]
    with torch.inference_mode():
        for start in range(0, len(examples), _ROWS_PER_PASS):
            rows = slice(start, start + _ROWS_PER_PASS)
            outputs = module(torch.from_numpy(examples.inputs[rows].copy()))
            targets = torch.from_numpy(examples.targets[rows].copy())
            found.append(losses.losses(outputs, targets).double().numpy())
    return np.concatenate(found)


def _with_holdout(study: Study) -> Study:
    if study.evaluation.on == "public-holdout":
        return study
    changes = {"on": "public-holdout", "share": None, "every": None}
    changes["largest_loss"] = None
    held = study.evaluation.model_copy(update=changes)
    return study.model_copy(update={"evaluation": held})


def _rows(study: Study) -> tuple[Examples, Examples]:
    """Members of all sites, and strangers; as the engine deals them."""
    import pyarrow as pa

    assert study.simulation is not None
    table = synthetic.generate(study.simulation.source, study.simulation.seed)
    dealt, holdout, _ = partition.split(
        table, study.simulation, study.evaluation.rows, identity=study.identity
    )
    return _encoded(pa.concat_tables(dealt.values()), study), _encoded(holdout, study)


def _encoded(table: "pa.Table", study: Study) -> Examples:
    return tables.encode(table.slice(0, MOST_ROWS), study.public_contract)


def _caught(members: Numbers, strangers: Numbers, rate: float) -> float | None:
    mistaken = int(rate * len(strangers))
    if mistaken < 1:
        return None
    threshold = np.sort(strangers)[mistaken]  # so many strangers lie below it
    return float(np.mean(members < threshold))


def _spread(auc: float, members: int, strangers: int) -> float:
    """Standard error of an area under the curve (Hanley and McNeil 1982)."""
    if not members or not strangers:
        return float("nan")
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    inner = auc * (1 - auc) + (members - 1) * (one - auc**2)
    inner += (strangers - 1) * (two - auc**2)
    return float(np.sqrt(max(0.0, inner) / (members * strangers)))
