"""Recipes: the installed kinds of task that a study may name.

A study carries no code; it names a recipe, and the recipe says which models fit, which
loss is trained and which metrics are read. This module trains nothing.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from guilder_shared import metrics
from guilder_shared.errors import StudyError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """Encoded rows, ready for a model.

    Attributes:
        inputs: Rows first, float32; int64 for tokens. Tables have shape (rows,
            inputs), images (rows, channels, height, width), texts (rows, places).
        targets: float32: (rows,) with 0, 1 or the number of the class, or a mask of 0
            and 1 of shape (rows, height, width).
        units: Shape (rows,), int64: whose row it is, any number a unit. None where
            each row is a unit of its own.
    """

    inputs: NDArray[Any]
    targets: NDArray[np.float32]
    units: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Recipe:
    """One kind of task.

    Attributes:
        name: As a study's `[study] recipe` names it.
        data: The kind of data it reads.
        models: Names in the model registry that fit it.
        losses: One loss per row from the model's output and the targets, both rows
            first, to (rows,); never a mean over rows, which would depend on how many
            there are.
        has_charged: Whether its metrics can be counted row by row, for a charged
            release on a site's own rows (`training.charged`).
        metrics: From the output, as the model gives it, and the targets to numbers by
            name. A metric that the rows leave undefined is left out.
    """

    name: str
    data: str
    models: tuple[str, ...]
    losses: "Callable[[Tensor, Tensor], Tensor]"
    metrics: Callable[[NDArray[np.float32], NDArray[np.float32]], dict[str, float]]
    has_charged: bool = False


def recipe(name: str) -> Recipe:
    """The recipe of this name: Guilder's own, or one that `recipes` let in.

    Raises:
        StudyError: GLD-C060 no such recipe is installed, or let in.
    """
    found = RECIPES.get(name) or _others.get(name)
    if found is None:
        raise StudyError(
            "GLD-C060",
            f"recipe {name!r} is not installed here",
            why=f"installed recipes: {', '.join(sorted({*RECIPES, *_others}))}",
            fix="name one of them in [study] recipe, or update Guilder on this machine",
        )
    return found


def add(other: Recipe) -> None:
    """Let another's recipe in; `recipes.py` decides. Never one of Guilder's names."""
    assert other.name not in RECIPES, other.name
    _others[other.name] = other


def _binary_losses(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    # Imported here: recipes are read by commands that never load torch.
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(
        outputs.squeeze(-1), targets, reduction="none"
    )


def _table_losses(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    """One log-odds a row says 0 or 1, several outputs name a class."""
    if outputs.dim() == 1 or outputs.shape[1] == 1:
        return _binary_losses(outputs, targets)
    return _class_losses(outputs, targets)


def _class_losses(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    from torch.nn.functional import cross_entropy

    return cross_entropy(outputs, targets.long(), reduction="none")


def _mask_losses(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    """Half the pixels' mean cross-entropy, half what a row's soft Dice lacks of 1."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    logits, wanted = outputs.flatten(1), targets.flatten(1)
    pixels = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    chance = logits.sigmoid()
    both = (chance * wanted).sum(1)
    dice = (2 * both + 1) / (chance.sum(1) + wanted.sum(1) + 1)
    return (pixels.mean(1) + 1 - dice) / 2


def _binary_metrics(
    outputs: NDArray[np.float32], targets: NDArray[np.float32]
) -> dict[str, float]:
    logits = outputs.reshape(len(outputs))
    return _defined(
        auc=metrics.auc(logits, targets),
        accuracy=metrics.accuracy(logits, targets),
        loss=metrics.log_loss(logits, targets),
    )


def _class_metrics(
    outputs: NDArray[np.float32], targets: NDArray[np.float32]
) -> dict[str, float]:
    measured = _defined(
        accuracy=metrics.top_accuracy(outputs, targets),
        f1=metrics.macro_f1(outputs, targets),
        loss=metrics.cross_entropy(outputs, targets),
    )
    if outputs.shape[1] > 2:
        return _defined(macro_auc=metrics.macro_auc(outputs, targets)) | measured
    odds = outputs[:, 1] - outputs[:, 0]
    return _defined(auc=metrics.auc(odds, targets)) | measured


def _table_metrics(
    outputs: NDArray[np.float32], targets: NDArray[np.float32]
) -> dict[str, float]:
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        return _binary_metrics(outputs, targets)
    return _class_metrics(outputs, targets)


def _mask_metrics(
    outputs: NDArray[np.float32], targets: NDArray[np.float32]
) -> dict[str, float]:
    logits = outputs.reshape(targets.shape)
    return _defined(
        dice=metrics.dice(logits, targets),
        loss=metrics.log_loss(logits.reshape(-1), targets.reshape(-1)),
    )


def _no_losses(_outputs: "Tensor", _targets: "Tensor") -> "Tensor":
    raise AssertionError("a study of statistics trains nothing")


def _defined(**measured: float) -> dict[str, float]:
    return {name: value for name, value in measured.items() if not math.isnan(value)}


RECIPES: Mapping[str, Recipe] = {
    "tabular-classification": Recipe(
        name="tabular-classification",
        data="table",
        models=("logistic", "mlp"),
        losses=_table_losses,
        metrics=_table_metrics,
        has_charged=True,
    ),
    "image-classification": Recipe(
        name="image-classification",
        data="images",
        models=("cnn", "tanhcnn", "resnet18"),
        losses=_class_losses,
        metrics=_class_metrics,
        has_charged=True,
    ),
    "image-segmentation": Recipe(
        name="image-segmentation",
        data="images",
        models=("unet",),
        losses=_mask_losses,
        metrics=_mask_metrics,
        has_charged=True,
    ),
    "text-classification": Recipe(
        name="text-classification",
        data="texts",
        models=("encoder", "minilm"),
        losses=_class_losses,
        metrics=_class_metrics,
        has_charged=True,
    ),
    "statistics": Recipe(
        name="statistics",
        data="columns",
        models=("none",),
        losses=_no_losses,
        metrics=lambda _outputs, _targets: {},
    ),
}
_others: dict[str, Recipe] = {}
