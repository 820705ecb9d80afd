"""Turns of a deployed site on classes, images and texts: each unit counted by hand."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from guilder_client import policy, turn
from guilder_client.site import Site
from guilder_shared import tables, tasks
from guilder_shared.messages import Offer, Plan, TurnRequest, Verdict, pack, unpack
from guilder_shared.models import registry
from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.study import Study
from guilder_shared.tasks import Examples

PLAN = Plan(None, 3, SENSITIVITY_SLACK)
CLIP_MARGIN = 1 - 2.0**-10
PERSONS = 10  # typed by somebody
WHO = ["ann", "bob", "ann", "cem", "", "ann", "bob", "dee"]


@dataclass(frozen=True)
class Kind:
    """A recipe, its [data] and [model], and a writer of a file for it."""

    recipe: str
    data: dict[str, Any]
    model: dict[str, Any]
    file: str
    write: Callable[[Path], None]
    unit: str = "person"


def write_classes(path: Path) -> None:
    cells = zip("abcabcab", np.linspace(-1, 1, 8), WHO, strict=True)
    lines = [f"{x:.3f},{level},{who}" for level, x, who in cells]
    path.write_text("\n".join(["x,level,who", *lines, "0.5,none of these,eve"]))


def write_images(path: Path) -> None:
    rng = np.random.default_rng(2)
    np.savez(
        path,
        image=rng.integers(0, 256, (8, 8, 8), dtype=np.uint8),
        target=np.arange(8) % 3,
        who=np.array(WHO),
    )


def write_texts(path: Path) -> None:
    words = ["lost card", "fee", "my pin", "a transfer", "fee", "card", "pin", "fee"]
    cells = zip(words, "abcabcab", WHO, strict=True)
    path.write_text("\n".join(["text,target,who", *map(",".join, cells)]))


KINDS = {
    "table": Kind(
        "tabular-classification",
        {
            "kind": "table",
            "target": "level",
            "classes": ["a", "b", "c"],
            "columns": {"x": {"kind": "number", "low": -1, "high": 1}},
        },
        {"name": "mlp", "hidden": [4]},
        "data.csv",
        write_classes,
        unit="record",
    ),
    "images": Kind(
        "image-classification",
        {
            "kind": "images",
            "target": "target",
            "height": 8,
            "width": 8,
            "channels": 1,
            "classes": ["0", "1", "2"],
        },
        {"name": "cnn", "width": 8},
        "data.npz",
        write_images,
    ),
    "texts": Kind(
        "text-classification",
        {
            "kind": "texts",
            "target": "target",
            "max_tokens": 6,
            "classes": ["a", "b", "c"],
            "words": "hashed",
            "vocabulary": 64,
        },
        {"name": "encoder", "width": 8},
        "data.csv",
        write_texts,
    ),
}
KINDS["persons of classes"] = Kind(
    **{**KINDS["table"].__dict__, "unit": "person"},
)


def study(kind: Kind, clip_norm: float, cap: int = 8) -> Study:
    privacy = {"unit": kind.unit, "mechanism": "none", "epsilon": 2.0, "delta": 1e-6}
    if kind.unit == "person":
        privacy["max_records"] = cap
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "t", "recipe": kind.recipe, "purpose": "p"},
            "data": kind.data | {"dataset": "d", "person": "who"},
            "model": kind.model,
            "training": {
                "rounds": 2,
                "local_steps": 1,
                "sample_rate": 1.0,
                "learning_rate": 1.0,
            },
            "privacy": privacy | {"clip_norm": clip_norm},
            "aggregation": {"min_sites": 1, "spare_turns": 1, "reply_quantum_s": 0},
            "evaluation": {"on": "none"},
        }
    )


@pytest.fixture
def opened(site_at: Callable[..., Site], tmp_path: Path) -> Callable[[Kind], Site]:
    def make(kind: Kind) -> Site:
        folder = tmp_path / "site"
        folder.mkdir()
        kind.write(folder / kind.file)

        def edit(text: str) -> str:
            typed = f"public_persons = {PERSONS}\n[policy]"
            every = json.dumps([each.recipe for each in KINDS.values()])
            text = text.replace('["tabular-classification"]', every)
            return text.replace("[policy]", typed)

        suffix = kind.file.partition(".")[2]
        return site_at(folder, edit, unprotected="true", kind=suffix, path=kind.file)

    return make


def asked(site: Site, wanted: Study) -> TurnRequest:
    answer = policy.consider(site, Offer("run-1", wanted.canonical(), PLAN))
    assert answer.grant_id, answer.reason
    model = pack(registry.initial(wanted))
    return TurnRequest("run-1", answer.grant_id, 1, 1, wanted.digest(), model)


def flat(update: dict[str, NDArray[np.float32]], names: Any) -> NDArray[np.float64]:
    return np.concatenate([update[n].reshape(-1) for n in names]).astype(np.float64)


def contribution(wanted: Study, mine: Examples) -> NDArray[np.float64]:
    """What one unit adds, in float64, by nothing but autograd."""
    module = registry.load(registry.initial(wanted), wanted).double()
    losses = tasks.recipe(wanted.study.recipe).losses
    inputs, targets = torch.from_numpy(mine.inputs), torch.from_numpy(mine.targets)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    loss = losses(module(inputs), targets.double()).sum()
    trained = [p for p in module.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, trained, materialize_grads=True)
    grad = torch.cat([g.reshape(-1) for g in grads])
    limit = wanted.privacy.clip_norm * CLIP_MARGIN
    clipped: NDArray[np.float64] = (grad * min(1.0, limit / float(grad.norm()))).numpy()
    return clipped


def units_of(wanted: Study, kind: Kind, path: Path) -> list[Examples]:
    suffix: Any = kind.file.partition(".")[2]
    contract = wanted.site_contract
    table = tables.read(suffix, path, {}, tables.needed(contract))
    every = tables.encode(table, contract)
    whose = np.arange(len(every)) if every.units is None else every.units
    return [
        Examples(every.inputs[whose == who], every.targets[whose == who])
        for who in np.unique(whose)
    ]


@pytest.mark.parametrize("clip_norm", [0.05, 100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_adds_each_units_clipped_gradient(
    opened: Callable[[Kind], Site], tmp_path: Path, kind: str, clip_norm: float
) -> None:
    wanted, site = study(KINDS[kind], clip_norm), opened(KINDS[kind])
    public = PERSONS if KINDS[kind].unit == "person" else 100

    reply = turn.take(site, asked(site, wanted))

    assert reply.verdict == Verdict.DONE
    update = unpack(reply.update, registry.shapes(wanted))
    module = registry.load(registry.initial(wanted), wanted)
    names = [n for n, p in module.named_parameters() if p.requires_grad]
    found = flat(update, names)
    units = units_of(wanted, KINDS[kind], tmp_path / "site" / KINDS[kind].file)
    assert len(units) == (4 if KINDS[kind].unit == "person" else 8)  # nobody is no one
    expected = -sum(contribution(wanted, mine) for mine in units) / public
    rounding = 6e-8 * np.linalg.norm(flat(registry.initial(wanted), names))
    error = np.linalg.norm(found - expected)
    assert error <= 1e-5 * np.linalg.norm(expected) + rounding


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_of_a_person_with_many_rows_the_capped_number_counts(
    opened: Callable[[Kind], Site], tmp_path: Path, kind: str
) -> None:
    wanted, site = study(KINDS[kind], 1e3, cap=1), opened(KINDS[kind])

    update = unpack(
        turn.take(site, asked(site, wanted)).update, registry.shapes(wanted)
    )

    path = tmp_path / "site" / KINDS[kind].file
    module = registry.load(registry.initial(wanted), wanted)
    names = [n for n, p in module.named_parameters() if p.requires_grad]
    left = -PERSONS * flat(update, names)
    possible: list[Any] = [left]
    for mine in units_of(wanted, KINDS[kind], path):  # one row of each, whichever
        rows = [
            contribution(wanted, Examples(mine.inputs[[n]], mine.targets[[n]]))
            for n in range(len(mine))
        ]
        possible = [before - row for before in possible for row in rows]
    assert len(possible) == 3 * 2 * 1 * 1
    assert min(map(np.linalg.norm, possible)) <= 1e-4 * np.linalg.norm(left)


@pytest.mark.parametrize("kind", ["table", "images", "texts"])
def test_a_turn_asked_again_is_charged_nothing_new(
    opened: Callable[[Kind], Site], kind: str
) -> None:
    wanted, site = study(KINDS[kind], 0.5), opened(KINDS[kind])
    request = asked(site, wanted)
    first = turn.take(site, request)
    entries = [g.turns for g in site.ledger.grants()]

    again = turn.take(site, request)

    assert again.update == first.update
    assert [g.turns for g in site.ledger.grants()] == entries
    (turns,) = entries
    assert list(turns) == [1]
