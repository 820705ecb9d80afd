"""Head, biases or adapters alone: the sum is theirs, and what is frozen never moves."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.privacy.bookkeeping.step import PrivateStep
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.fit import fit

KEYS = TurnKeys.seeded(4, site="site-1", round_no=1)
IMAGES = {
    "kind": "images",
    "dataset": "d",
    "target": "y",
    "height": 8,
    "width": 8,
    "channels": 3,
    "classes": ["a", "b", "c"],
}
TEXTS = {
    "kind": "texts",
    "dataset": "d",
    "target": "y",
    "max_tokens": 8,
    "classes": ["a", "b", "c"],
    "words": "hashed",
    "vocabulary": 50,
}
PARTS = [
    ("cnn", {"train": "head"}),
    ("cnn", {"train": "bias"}),
    ("encoder", {"train": "head"}),
    ("encoder", {"train": "bias"}),
    ("encoder", {"train": "lora", "rank": 2}),
]


def study_of(name: str, part: dict[str, Any], **training: Any) -> Study:
    images = name == "cnn"
    kind = "image" if images else "text"
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "s", "recipe": f"{kind}-classification", "purpose": "p"},
            "data": IMAGES if images else TEXTS,
            "model": {"name": name, "width": 8, **part},
            "training": {
                "rounds": 2,
                "local_steps": 2,
                "sample_rate": 1.0,
                "learning_rate": 1.0,
                **training,
            },
            "privacy": {
                "unit": "record",
                "mechanism": "site-noise",
                "epsilon": 3.0,
                "delta": 1e-4,
                "clip_norm": 0.5,
            },
            "aggregation": {"min_sites": 1},
            "evaluation": {"on": "none"},
        }
    )


def rows(study: Study, num: int) -> Examples:
    """Made-up rows as the trained module reads them."""
    rng = np.random.default_rng(1)
    wanted = registry.inputs(study)
    targets: Any = rng.integers(0, 3, num)
    if wanted.tokens is None:
        numbers = rng.uniform(-1, 1, (num, *wanted.shape)).astype(np.float32)
        return Examples(numbers, targets)
    return Examples(rng.integers(3, wanted.tokens, (num, *wanted.shape)), targets)


def trained(study: Study, examples: Examples) -> dict[str, Any]:
    turns = study.training.rounds + study.aggregation.spare_turns
    plan = Plan(1.5, turns, accounting.SENSITIVITY_SLACK)
    start = registry.initial(study)
    return dict(fit(start, study, plan, examples, public_size=20, keys=KEYS))


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The sum of each step, before its noise."""
    seen: list[np.ndarray] = []
    release = PrivateStep.release

    def watch(step: PrivateStep, total: torch.Tensor) -> None:
        seen.append(total.numpy().copy())
        release(step, total)

    monkeypatch.setattr(PrivateStep, "release", watch)
    return seen


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_the_sum_holds_exactly_what_is_trained(
    sums: list[np.ndarray], name: str, part: dict[str, Any]
) -> None:
    study = study_of(name, part)
    examples = rows(study, 12)

    update = trained(study, examples)
    trained(study, Examples(examples.inputs[:-1], examples.targets[:-1]))

    shapes = registry.shapes(study)
    assert {n: x.shape for n, x in update.items()} == dict(shapes)
    assert len(sums[0]) == sum(int(np.prod(shape)) for shape in shapes.values())
    limit = study.privacy.clip_norm * (1 + accounting.SENSITIVITY_SLACK)
    assert 0 < float(np.linalg.norm(sums[0] - sums[2])) <= limit


@pytest.mark.parametrize(("name", "part"), PARTS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_is_frozen_never_moves(
    monkeypatch: pytest.MonkeyPatch, name: str, part: dict[str, Any], optimizer: str
) -> None:
    study = study_of(name, part, optimizer=optimizer)
    loaded: list[nn.Module] = []
    load = registry.load

    def watch(*args: Any) -> nn.Module:
        loaded.append(load(*args))
        return loaded[-1]

    monkeypatch.setattr(registry, "load", watch)
    update = trained(study, rows(study, 12))
    (module,) = loaded
    fresh = load(registry.initial(study), study)

    before = dict(fresh.named_parameters())
    for parameter_name, p in module.named_parameters():
        same = torch.equal(p, before[parameter_name])
        assert same != p.requires_grad, parameter_name
    assert all(np.any(x != 0) for x in update.values())


def test_copies_of_features_are_refused() -> None:
    copies = {"copies": 2, "flip": True}

    with pytest.raises(ValueError, match="features already"):
        study_of("cnn", {"train": "head"}, augment=copies)

    assert study_of("cnn", {"train": "bias"}, augment=copies).training.augment


def test_copies_of_images_are_trained_on(sums: list[np.ndarray]) -> None:
    part = {"train": "bias"}
    copies = {"copies": 3, "flip": True, "shift": 1, "jitter": 0.05}
    study = study_of("cnn", part, augment=copies, local_steps=1)
    examples = rows(study, 12)

    trained(study, examples)
    trained(study_of("cnn", part, local_steps=1), examples)

    limit = 12 * study.privacy.clip_norm
    assert 0 < float(np.linalg.norm(sums[0])) <= limit
    assert not np.allclose(sums[0], sums[1])
