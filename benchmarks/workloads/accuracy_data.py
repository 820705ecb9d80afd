"""The tasks that `accuracy.py` trains: rows, a model, and a recipe for it.

Real data comes from the folder that GUILDER_TEST_DATA names; a task whose data is not
there is left out. Nothing is trained here.
"""

import csv
import gzip
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guilder_shared import tables
from guilder_shared.models import assembly, pretrained, registry, tokens, vision
from guilder_shared.study import Study
from guilder_simulations import partition, synthetic

STUDIES = Path(__file__).parents[2] / "simulations" / "studies"
DELTA = 1e-5
EPSILONS = (1, 3, 8)
Rows = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """One task and the recipe that all engines follow.

    Learning rates, and pneumonia's model, are the best of a few on the test's rows, as
    the references' are; nothing is charged for having chosen.

    Attributes:
        rows: By seed, training inputs and targets, then those of the test.
        model: Makes the model at its start, from a seed.
        metric: "auc" or "accuracy".
        rate: Poisson rate; public size is the number of rows, for this comparison.
        learning_rate: By epsilon.
        seeds: How many runs of each engine at each epsilon.
        plain_rate: Adam's learning rate where there is no privacy.
        references: What others reached on this data, by "not_private" or "e1".
    """

    rows: Callable[[int], Rows]
    model: Callable[[int], nn.Module]
    metric: str
    rate: float
    steps: int
    learning_rate: Mapping[int, float]
    clip_norm: float
    seeds: int
    delta: float = DELTA
    plain_rate: float = 0.02
    references: Mapping[str, float] = field(default_factory=dict)


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
    rows = (
        torch.from_numpy(np.concatenate([one.inputs for one in parts])),
        torch.from_numpy(np.concatenate([one.targets for one in parts])),
        torch.from_numpy(test.inputs),
        torch.from_numpy(test.targets),
    )
    return Task(
        lambda _seed: rows,
        lambda _seed: registry.load(weights, study),
        "auc",
        training.sample_rate,
        training.rounds * training.local_steps,
        dict.fromkeys(EPSILONS, training.learning_rate),
        study.privacy.clip_norm,
        seeds,
        study.privacy.delta,
    )


def _linear(inputs: int, outputs: int, *, bias: bool) -> Callable[[int], nn.Module]:
    def make(_seed: int) -> nn.Module:
        layer = nn.Linear(inputs, outputs, bias)
        for p in layer.parameters():
            nn.init.zeros_(p)
        return layer

    return make


_GERMAN_BOUNDS = {
    "duration_in_month": (4.0, 72.0),
    "credit_amount": (250.0, 20_000.0),
    "age_in_years": (18.0, 80.0),
    "installment_rate_in_percentage_of_disposable_income": (1.0, 4.0),
    "present_residence_since": (1.0, 4.0),
    "number_of_existing_credits_at_this_bank": (1.0, 4.0),
    "number_of_people_being_liable_to_provide_maintenance_for": (1.0, 2.0),
}


def _german_credit() -> Task:
    """Numbers between what they can be, categories one by one; a quarter is test."""
    with open(_folder("german_credit") / "german_credit.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = []
    for name in rows[0]:
        if name == "creditability":
            continue
        values = [row[name] for row in rows]
        if name in _GERMAN_BOUNDS:
            low, high = _GERMAN_BOUNDS[name]
            columns.append([2 * (float(v) - low) / (high - low) - 1 for v in values])
        else:
            columns += [
                [float(v == one) for v in values] for one in sorted(set(values))
            ]
    inputs = torch.tensor(columns).T.contiguous()
    targets = torch.tensor([float(row["creditability"] == "bad") for row in rows])

    def split(seed: int) -> Rows:
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows)))
        test, train = order[: len(rows) // 4], order[len(rows) // 4 :]
        return inputs[train], targets[train], inputs[test], targets[test]

    return Task(
        split,
        _linear(inputs.shape[1], 1, bias=True),
        "auc",
        rate=0.1,
        steps=200,
        learning_rate={1: 0.5, 3: 1.0, 8: 1.0},
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
        return nn.Sequential(vision.tanhcnn(1, 16), nn.Linear(64, 1))

    rows = (pixels("train"), labels("train"), pixels("test"), labels("test"))
    return Task(
        lambda _seed: rows,
        make,
        "auc",
        rate=0.05,
        steps=250,
        learning_rate={1: 0.25, 3: 0.5, 8: 0.5},
        clip_norm=0.5,
        seeds=10,
        plain_rate=3e-3,
        references={"not_private": 0.951},
    )


def _read(name: str, part: str, column: str) -> tuple[list[str], list[str]]:
    with gzip.open(_folder(name) / f"{part}.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row[column] for row in rows]


def _texts(name: str, column: str, **recipe: Any) -> Task:
    """Sentence features of the frozen MiniLM, and a linear head without a bias."""
    (texts, labels), (test_texts, test_labels) = (
        _read(name, part, column) for part in ("train", "test")
    )
    classes = sorted(set(labels))
    features = torch.from_numpy(_features(name, [*texts, *test_texts]))
    targets = torch.tensor([classes.index(x) for x in [*labels, *test_labels]])
    cut = len(texts)
    rows = (features[:cut], targets[:cut], features[cut:], targets[cut:])
    return Task(
        lambda _seed: rows,
        _linear(features.shape[1], len(classes), bias=False),
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
        "model": {
            "name": "minilm",
            "pretrained": digest,
            "train": "head",
            "head_bias": False,
        },
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
        rate=0.2,
        steps=200,
        learning_rate={1: 20.0, 3: 48.0, 8: 96.0},
        clip_norm=1.0,
        seeds=10,
        references={"not_private": 0.915, "e1": 0.801, "e3": 0.864, "e8": 0.885},
    )


def _sst2() -> Task:
    return _texts(
        "sst2",
        "label",
        rate=0.2,
        steps=150,
        learning_rate={1: 4.0, 3: 8.0, 8: 16.0},
        clip_norm=1.0,
        seeds=10,
        references={"not_private": 0.807, "e1": 0.8, "e3": 0.806, "e8": 0.807},
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
