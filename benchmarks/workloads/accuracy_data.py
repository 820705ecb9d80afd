"""The tasks that `accuracy.py` trains: rows, a model, and a recipe for it.

Real data comes from the folder that GUILDER_TEST_DATA names; a task whose data is not
there is left out. Nothing is trained here.
"""

import csv
import gzip
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guilder_shared import tables
from guilder_shared.models import assembly, pretrained, registry, tokens
from guilder_shared.study import Study
from guilder_simulations import partition, synthetic

STUDIES = Path(__file__).parents[2] / "simulations" / "studies"
DELTA = 1e-5


@dataclass(frozen=True)
class Task:
    """One task and the recipe that all engines follow.

    Attributes:
        rows: Training inputs and targets, then those of the test.
        model: Makes the model at its start, from a seed.
        metric: "auc" or "accuracy".
        rate: Poisson rate; public size is the number of rows, for this comparison.
        seeds: How many runs of each engine at each epsilon.
        plain_rate: Adam's learning rate where there is no privacy.
    """

    rows: tuple[Tensor, Tensor, Tensor, Tensor]
    model: Callable[[int], nn.Module]
    metric: str
    rate: float
    steps: int
    learning_rate: float
    clip_norm: float
    seeds: int
    delta: float = DELTA
    plain_rate: float = 0.02


def _folder(name: str) -> Path:
    return Path(os.environ.get("GUILDER_TEST_DATA", "/nowhere")) / name


def _of_study(name: str, seeds: int) -> Task:
    """A simulated study, all sites pooled, by its own numbers."""
    study = Study.load(STUDIES / f"{name}.toml")
    simulation = study.simulation
    assert simulation is not None
    table = synthetic.generate(simulation.source, simulation.seed)
    dealt, holdout, _ = partition.split(
        table, simulation, study.evaluation.rows or 0.0, identity=study.identity
    )
    parts = [tables.encode(one, study.site_contract) for one in dealt.values()]
    test = tables.encode(holdout, study.public_contract)
    weights, training = registry.initial(study), study.training
    return Task(
        (
            torch.from_numpy(np.concatenate([one.inputs for one in parts])),
            torch.from_numpy(np.concatenate([one.targets for one in parts])),
            torch.from_numpy(test.inputs),
            torch.from_numpy(test.targets),
        ),
        lambda _seed: registry.load(weights, study),
        "auc",
        training.sample_rate,
        training.rounds * training.local_steps,
        training.learning_rate,
        study.privacy.clip_norm,
        seeds,
        study.privacy.delta,
    )


def _linear(inputs: int, outputs: int) -> Callable[[int], nn.Module]:
    def make(_seed: int) -> nn.Module:
        layer = nn.Linear(inputs, outputs)
        for p in layer.parameters():
            nn.init.zeros_(p)
        return layer

    return make


def _german_credit() -> Task:
    """Numbers over what they can be, categories one by one; every fifth row is test."""
    with open(_folder("german_credit") / "german_credit.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    most = {
        "duration_in_month": 72.0,
        "credit_amount": 20_000.0,
        "age_in_years": 80.0,
        "installment_rate_in_percentage_of_disposable_income": 4.0,
        "present_residence_since": 4.0,
        "number_of_existing_credits_at_this_bank": 4.0,
        "number_of_people_being_liable_to_provide_maintenance_for": 2.0,
    }
    columns = []
    for name in rows[0]:
        if name == "creditability":
            continue
        values = [row[name] for row in rows]
        if name in most:
            columns.append([2 * float(v) / most[name] - 1 for v in values])
        else:
            columns += [
                [float(v == one) for v in values] for one in sorted(set(values))
            ]
    inputs = torch.tensor(columns).T.contiguous()
    targets = torch.tensor([float(row["creditability"] == "bad") for row in rows])
    test = torch.arange(len(rows)) % 5 == 0
    return Task(
        (inputs[~test], targets[~test], inputs[test], targets[test]),
        _linear(inputs.shape[1], 1),
        "auc",
        rate=0.1,
        steps=150,
        learning_rate=2.0,
        clip_norm=0.5,
        seeds=60,
    )


def _pneumonia() -> Task:
    found = np.load(_folder("pneumoniamnist") / "pneumoniamnist.npz")

    def pixels(name: str) -> Tensor:
        return torch.from_numpy(found[f"{name}_images"]).float()[:, None] / 127.5 - 1

    def labels(name: str) -> Tensor:
        return torch.from_numpy(found[f"{name}_labels"].reshape(-1)).float()

    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            nn.Tanh(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(32 * 49, 32),
            nn.Tanh(),
            nn.Linear(32, 1),
        )

    return Task(
        (pixels("train"), labels("train"), pixels("test"), labels("test")),
        make,
        "auc",
        rate=0.05,
        steps=250,
        learning_rate=1.0,
        clip_norm=0.5,
        seeds=10,
        plain_rate=1e-3,
    )


def _read(name: str, part: str, column: str) -> tuple[list[str], list[str]]:
    with gzip.open(_folder(name) / f"{part}.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row[column] for row in rows]


def _texts(name: str, column: str, **recipe: Any) -> Task:
    """Sentence features of the frozen MiniLM, and a linear head."""
    (texts, labels), (test_texts, test_labels) = (
        _read(name, part, column) for part in ("train", "test")
    )
    classes = sorted(set(labels))
    features = torch.from_numpy(_features(name, [*texts, *test_texts]))
    targets = torch.tensor([classes.index(x) for x in [*labels, *test_labels]])
    cut = len(texts)
    return Task(
        (features[:cut], targets[:cut], features[cut:], targets[cut:]),
        _linear(features.shape[1], len(classes)),
        "accuracy",
        **recipe,
    )


def _features(name: str, texts: list[str]) -> NDArray[np.float32]:
    """(texts, 384), computed once and kept in the folder for temporary files."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    kept = Path(tempfile.gettempdir()) / f"guilder-features-{name}-{digest}.npy"
    if not kept.exists():
        np.save(kept, _computed(texts))
    found: NDArray[np.float32] = np.load(kept)
    return found


def _computed(texts: list[str]) -> NDArray[np.float32]:
    study = Study.model_validate(_text_study())
    rows = tokens.encode(texts, study.data)  # type: ignore[arg-type]
    body, lengths = assembly.body(study), (rows != 0).sum(1)
    order, found = np.argsort(lengths), np.empty((len(rows), 384), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), 128):
            some = order[start : start + 128]
            batch = rows[some, : max(1, lengths[some].max())]
            found[some] = body(torch.from_numpy(batch)).numpy()
    return found


def _text_study() -> dict[str, Any]:
    path = pretrained._folder() / "model.safetensors"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "schema": 1,
        "study": {"name": "t", "recipe": "text-classification", "purpose": "Measure"},
        "data": {
            "kind": "texts",
            "dataset": "t",
            "target": "y",
            "max_tokens": 64,
            "words": "wordpiece",
            "classes": ["a", "b"],
        },
        "model": {"name": "minilm", "pretrained": digest, "train": "head"},
        "training": {
            "rounds": 1,
            "local_steps": 1,
            "sample_rate": 1.0,
            "learning_rate": 1.0,
        },
        "privacy": {
            "unit": "record",
            "mechanism": "site-noise",
            "epsilon": 3.0,
            "delta": 1e-5,
            "clip_norm": 1.0,
        },
        "aggregation": {"min_sites": 1},
        "evaluation": {"on": "none"},
    }


def _banking() -> Task:
    return _texts(
        "banking77",
        "category",
        rate=0.05,
        steps=300,
        learning_rate=40.0,
        clip_norm=1.0,
        seeds=10,
    )


def _sst2() -> Task:
    return _texts(
        "sst2",
        "label",
        rate=0.05,
        steps=150,
        learning_rate=8.0,
        clip_norm=1.0,
        seeds=10,
    )


TASKS: dict[str, Callable[[], Task]] = {
    "card_fraud": lambda: _of_study("card-fraud", 10),
    "breast_cancer": lambda: _of_study("breast-cancer", 20),
    "german_credit": _german_credit,
    "pneumonia": _pneumonia,
    "banking77": _banking,
    "sst2": _sst2,
}


def is_here(name: str) -> bool:
    """Whether the task's data is on this machine."""
    folders = {"german_credit", "banking77", "sst2", "pneumonia"}
    folder = "pneumoniamnist" if name == "pneumonia" else name
    return name not in folders or _folder(folder).is_dir()
