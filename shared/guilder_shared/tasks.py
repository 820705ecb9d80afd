"""Recipes: the installed kinds of task that a study may name.

A study carries no code; it names a recipe, and the recipe says which models fit, which
loss is trained and which metrics are read. This module trains nothing.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        inputs: Shape (rows, inputs), float32.
        targets: Shape (rows,), float32.
        units: Shape (rows,), int64: whose row it is, any number a unit. None where
            each row is a unit of its own.
    """

    inputs: NDArray[np.float32]
    targets: NDArray[np.float32]
    units: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Recipe:
    """One kind of task.

    Attributes:
        name: As a study's `[study] recipe` names it.
        models: Names in the model registry that fit it.
        losses: One loss per row from the model's output and the targets, shapes
            (rows, 1) and (rows,) to (rows,); never a mean, which would depend on how
            many rows there are.
        metrics: From the output, shape (rows,), and the targets to numbers by name. A
            metric that the rows leave undefined is left out.
    """

    name: str
    models: tuple[str, ...]
    losses: "Callable[[Tensor, Tensor], Tensor]"
    metrics: Callable[[NDArray[np.float32], NDArray[np.float32]], dict[str, float]]


def recipe(name: str) -> Recipe:
    """The installed recipe of this name.

    Raises:
        StudyError: GLD-C060 no such recipe is installed.
    """
    if name not in RECIPES:
        raise StudyError(
            "GLD-C060",
            f"recipe {name!r} is not installed here",
            why=f"installed recipes: {', '.join(sorted(RECIPES))}",
            fix="name one of them in [study] recipe, or update Guilder on this machine",
        )
    return RECIPES[name]


def _binary_losses(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    # Imported here: recipes are read by commands that never load torch.
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(
        outputs.squeeze(-1), targets, reduction="none"
    )


def _binary_metrics(
    logits: NDArray[np.float32], targets: NDArray[np.float32]
) -> dict[str, float]:
    measured = {
        "auc": metrics.auc(logits, targets),
        "accuracy": metrics.accuracy(logits, targets),
        "loss": metrics.log_loss(logits, targets),
    }
    return {name: value for name, value in measured.items() if not math.isnan(value)}


RECIPES: Mapping[str, Recipe] = {
    "tabular-classification": Recipe(
        name="tabular-classification",
        models=("logistic", "mlp"),
        losses=_binary_losses,
        metrics=_binary_metrics,
    ),
}
