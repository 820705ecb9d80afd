"""Charged metrics: what is counted of each held-out row, released, and read off.

A site counts, noises once and gives a vector; the server adds the sites' vectors and
reads metrics off the sum. This module reads no file, charges nothing and sends nothing;
torch is imported by the site's part alone.

Review, mathematics. A row's scores are turned into blocks of public bounds: right or
wrong, the cell of its score among those of its class, its loss by the largest that
counts, its overlap (Dice, in [0, 1] whatever the masks). Blocks are released jointly,
as one draw and one event (`privacy.statistics`). A person counts as the mean of its
rows, so it adds a vector no longer than one row's. Rows pass the model one at a time,
for kernels round a row by its neighbours and a server's weights could make that
visible: a unit moves the sum by its own blocks alone. A score that is not finite counts
as wrong, its loss as the largest, its cell as the first. Nothing stops a turn. What is
read off is post-processing. Public: cells, bounds, noise. Secret: rows and how many.
Review, crash order: in memory only; the caller has charged the release before rows were
read, and seals the vector before it sends it.
"""

import math

import numpy as np
from numpy.typing import NDArray

from guilder_shared import metrics as measures
from guilder_shared import tasks
from guilder_shared.messages import Weights
from guilder_shared.models import registry
from guilder_shared.privacy import statistics
from guilder_shared.privacy.statistics import Block, Numbers
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import device

LARGEST_LOSS = 5.0  # nats; where a study names none
_CELLS = 16
_HALF = 4.0  # log-odds to each side of the centre


def widths(study: Study) -> dict[str, int]:
    """How many numbers each block of the study's release has, in their order."""
    if registry.inputs(study).mask:
        return {"images": 1, "dice": 1, "losses": 1}
    scores = {"scores": 2 * _CELLS} if _is_binary(study) else {}
    return {"answers": 2, "losses": 1, **scores}


def release(
    weights: Weights,
    study: Study,
    held_out: Examples,
    *,
    noise_multiplier: float,
    key: bytes,
) -> Numbers:
    """Measure a model on held-out rows and noise the counts, once.

    Args:
        weights: The model, as `registry.check` wants it.
        study: Names recipe, model and bounds.
        held_out: Rows that no step has drawn; none is allowed, and gives noise.
        noise_multiplier: Of the joint release, as charged.
        key: 32 bytes, used for this release only.

    Returns:
        Shape (numbers of all blocks,), private as `statistics.event` says.

    Raises:
        StudyError: The weights are not this study's.
        PlanError: GLD-P090 the noise hides nobody.
    """
    if len(held_out):
        with device.turn():
            outputs, losses = _pass(weights, study, held_out)
        blocks = _blocks(study, outputs, held_out.targets, losses)
    else:
        # its bounds are those of any rows: the noise on each number depends on them
        sizes = widths(study).items()
        blocks = [
            Block(name, np.zeros((0, num)), _bound(study, name)) for name, num in sizes
        ]
    units = held_out.units
    if units is not None:
        blocks = statistics.averaged(blocks, units)
    found = statistics.release(blocks, noise_multiplier, key, units)
    return np.concatenate([found[name] for name in widths(study)])


def metrics(study: Study, total: Numbers) -> dict[str, float]:
    """What the sum of all sites' releases says of the model.

    Args:
        study: As for `release`.
        total: The sum, shape (numbers of all blocks,).

    Returns:
        By name, each in the range its metric has. One that the noise leaves without
        meaning (no rows, one class) is left out.
    """
    ends = np.cumsum(list(widths(study).values()))[:-1]
    parts = dict(zip(widths(study), np.split(total, ends), strict=True))
    if "images" in parts:
        num = float(parts["images"][0])
        found = {"dice": _share(float(parts["dice"][0]), num)}
    else:
        right, wrong = (float(each) for each in parts["answers"])
        num = right + wrong
        found = {"accuracy": _share(right, num)}
    found["loss"] = _share(float(parts["losses"][0]) / _largest(study), num)
    found["loss"] *= _largest(study)
    if "scores" in parts:
        found["auc"] = statistics.auc(*np.split(parts["scores"], 2))
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _share(part: float, num: float) -> float:
    """Part of num, within [0, 1]; NaN where noise has left no rows."""
    return min(max(part / num, 0.0), 1.0) if num >= 1 else math.nan


def _pass(
    weights: Weights, study: Study, rows: Examples
) -> tuple[NDArray[np.float32], Numbers]:
    """Outputs and losses, each row alone; at least one row."""
    import torch

    module = registry.load(weights, study)
    module.eval()
    losses_of = tasks.recipe(study.study.recipe).losses
    outputs, losses = [], np.empty(len(rows))
    with torch.inference_mode():
        for place in range(len(rows)):
            one = slice(place, place + 1)
            found = module(torch.from_numpy(rows.inputs[one].copy()))
            targets = torch.from_numpy(rows.targets[one].copy())
            outputs.append(found.numpy())
            losses[place] = float(losses_of(found, targets)[0])
    return np.concatenate(outputs), losses


def _blocks(
    study: Study,
    outputs: NDArray[np.float32],
    targets: NDArray[np.float32],
    losses: Numbers,
) -> list[Block]:
    largest = _largest(study)
    counted = np.where(np.isfinite(losses), np.clip(losses, 0.0, largest), largest)
    lost = Block("losses", counted[:, None], _bound(study, "losses"))
    if registry.inputs(study).mask:
        return [
            statistics.count("images", len(targets)),
            Block("dice", _dice(outputs, targets)[:, None], 1.0),
            lost,
        ]
    outputs = outputs.reshape(len(outputs), -1).astype(np.float64)
    finite = np.isfinite(outputs).all(axis=1)
    if outputs.shape[1] == 1:  # log-odds of the second class
        outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
    right = finite & (outputs.argmax(axis=1) == targets)
    answers = np.stack([right, ~right], axis=1).astype(np.float64)
    blocks = [Block("answers", answers, 1.0), lost]
    if not _is_binary(study):
        return blocks
    with np.errstate(invalid="ignore"):  # infinity less infinity is no score
        odds = np.where(finite, outputs[:, 1] - outputs[:, 0], -np.inf)
    return [*blocks, Block("scores", _cells(study, odds, targets), 1.0)]


def _cells(study: Study, odds: Numbers, targets: NDArray[np.float32]) -> Numbers:
    """One of each row's cells: those of class 0 first, scores rising."""
    prior = study.model.prior or 0.5
    centre = math.log(prior / (1 - prior))
    inner = centre + np.linspace(-_HALF, _HALF, _CELLS + 1)[1:-1]
    places = np.searchsorted(inner, odds, side="right")
    cells = places + _CELLS * (targets == 1)
    rows: Numbers = (cells[:, None] == np.arange(2 * _CELLS)).astype(np.float64)
    return rows


def _dice(outputs: NDArray[np.float32], targets: NDArray[np.float32]) -> Numbers:
    logits = outputs.reshape(targets.shape)
    rows = (slice(place, place + 1) for place in range(len(targets)))
    return np.array([measures.dice(logits[one], targets[one]) for one in rows])


def _is_binary(study: Study) -> bool:
    found = registry.inputs(study)
    return found.classes == 2 and not found.mask


def _bound(study: Study, name: str) -> float:
    """Public: how long a row's part of a block may be."""
    return _largest(study) if name == "losses" else 1.0


def _largest(study: Study) -> float:
    return study.evaluation.largest_loss or LARGEST_LOSS
