"""The registry of models: a study names one, and this room makes it.

Outside torch a model is `Weights`: float32 arrays under torch's parameter names. The
server starts and checks models here without loading torch. No weight is trained here.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from guilder_shared import tasks
from guilder_shared.errors import StudyError
from guilder_shared.messages import Weights
from guilder_shared.models import tabular
from guilder_shared.study import CategoryColumn, Study, TableData

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS", "Weights", "build", "check", "initial", "num_inputs", "shapes"]

MODELS = ("logistic", "mlp")


def num_inputs(data: TableData) -> int:
    """Encoded inputs of one row: one a number, one for each value of a category."""
    return sum(
        len(column.values) if isinstance(column, CategoryColumn) else 1
        for column in data.columns.values()
    )


def shapes(study: Study) -> Mapping[str, tuple[int, ...]]:
    """The parameters' names and shapes: what every update of this study must have.

    Raises:
        StudyError: As `build`.
    """
    return tabular.shapes(_widths(study))


def initial(study: Study) -> Weights:
    """The model before its first round, from the study alone; torch is not loaded.

    The study's digest is the seed, so everyone who holds the study starts from the
    same bytes.

    Raises:
        StudyError: As `build`.
    """
    return tabular.initial(
        _widths(study), seed=int(study.digest(), 16), prior=study.model.prior
    )


def build(study: Study) -> "nn.Module":
    """The study's torch module, mapping (rows, inputs) to (rows, 1) log-odds.

    Raises:
        StudyError: GLD-C060 unknown recipe, GLD-C061 the model is unknown or does not
            fit the recipe.
    """
    return tabular.build(_widths(study))


def check(weights: Mapping[str, NDArray[np.float32]], study: Study) -> None:
    """Check that weights, or an update, are this study's and finite.

    Raises:
        StudyError: GLD-C062 names, shapes or types differ, GLD-C063 a number is not
            finite. Both name the parameter and no value.
    """
    wanted = shapes(study)
    if set(weights) != set(wanted):
        odd = sorted(set(weights) ^ set(wanted))
        raise _misfit(f"parameter {odd[0]!r} is missing or unknown ({len(odd)} such)")
    for name, shape in wanted.items():
        array = weights[name]
        if array.dtype != np.float32 or array.shape != shape:
            raise _misfit(
                f"parameter {name!r} is {array.dtype} {array.shape}, "
                f"the study says float32 {shape}"
            )
        if not np.isfinite(array).all():
            raise StudyError(
                "GLD-C063",
                f"parameter {name!r} holds a number that is not finite",
                fix="lower training.learning_rate, or look at the site's log",
            )


def _widths(study: Study) -> tuple[int, ...]:
    model = study.model
    fitting = tasks.recipe(study.study.recipe).models
    if model.name not in MODELS or model.name not in fitting:
        raise StudyError(
            "GLD-C061",
            f"model {model.name!r} is not one of recipe {study.study.recipe!r}",
            why=f"its models: {', '.join(fitting)}",
            fix="name one of them in [model] name",
        )
    return (num_inputs(study.data), *model.hidden, 1)


def _misfit(what: str) -> StudyError:
    return StudyError(
        "GLD-C062",
        what,
        why="the weights belong to another study or another version",
        fix="compare the study digests on both sides",
    )
