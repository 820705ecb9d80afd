"""The registry of models: a study names one, and this room makes it.

Outside torch a model is `Weights`: float32 arrays of the trained parameters, under
torch's names. What is frozen never travels: it follows from the study, or is public
and named there by its digest. The server starts and checks models here without loading
torch. No weight is trained here.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from guilder_shared import tasks
from guilder_shared.errors import StudyError
from guilder_shared.messages import Weights
from guilder_shared.models import families, pretrained, starting, tabular, tokens
from guilder_shared.models.families import Inputs
from guilder_shared.study import (
    CategoryColumn,
    ColumnData,
    Data,
    ImageData,
    Study,
    TableData,
    TextData,
)
from guilder_shared.study.fitting import LARGEST_MODEL

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "MODELS",
    "Inputs",
    "Weights",
    "build",
    "check",
    "demand_model",
    "initial",
    "inputs",
    "load",
    "num_inputs",
    "ready",
    "shapes",
]

MODELS = (
    *("logistic", "mlp"),
    *("cnn", "tanhcnn", "resnet18", "unet"),
    *("encoder", "minilm"),
)

_BODY = "body."


def num_inputs(data: Data) -> int:
    """Encoded inputs of a table's row: one a number, one for each category's value."""
    assert isinstance(data, TableData), "only tables have columns"
    return sum(
        len(column.values) if isinstance(column, CategoryColumn) else 1
        for column in data.columns.values()
    )


def inputs(study: Study) -> Inputs:
    """What the study's trained module reads for one row: shape, type and bounds.

    Where the head alone is trained these are the body's features; see `features`.

    Raises:
        StudyError: As `build`.
    """
    demand_model(study)
    _check_model(study)
    if isinstance(study.data, TableData):
        return Inputs((num_inputs(study.data),), None, len(study.data.classes or "01"))
    if study.model.train == "head":
        return Inputs(
            (families.num_features(study),), None, families.row(study).classes
        )
    return families.row(study)


def shapes(study: Study) -> Mapping[str, tuple[int, ...]]:
    """The parameters' names and shapes: what every update of this study must have.

    Raises:
        StudyError: As `build`.
    """
    _check_model(study)
    if isinstance(study.data, ColumnData):
        return {}
    if isinstance(study.data, TableData):
        return tabular.shapes(_widths(study, study.data))
    return {name: start.shape for name, start in families.trained(study).items()}


def initial(study: Study) -> Weights:
    """The model before its first round, from the study alone; torch is not loaded.

    The study's digest is the seed, so everyone who holds the study starts from the
    same bytes. Parameters of public weights start as published.

    Raises:
        StudyError: As `build`; as `pretrained.minilm` where some of it is trained.
    """
    _check_model(study)
    if isinstance(study.data, ColumnData):
        return {}
    seed = int(study.digest(), 16)
    if isinstance(study.data, TableData):
        widths = _widths(study, study.data)
        return tabular.initial(widths, seed=seed, prior=study.model.prior)
    trained = families.trained(study)
    weights = starting.draw(trained, seed=seed)
    if study.model.pretrained and study.model.train not in ("head", "lora"):
        for name, array in pretrained.minilm(study.model.pretrained).items():
            if _BODY + name in weights:
                weights[_BODY + name] = array
    return weights


def ready(study: Study) -> None:
    """Check that what the study takes as given is on this machine.

    Raises:
        StudyError: As `build`; GLD-C100 or GLD-C101 its public weights are not here,
            GLD-C105 nor is its tokenizer.
    """
    _check_model(study)
    if isinstance(study.data, TextData):
        tokens.ready(study.data)
    if study.model.pretrained:
        pretrained.file("model.safetensors", study.model.pretrained)


def build(study: Study) -> "nn.Module":
    """The study's torch module; exactly the parameters of `shapes` ask for a gradient.

    It maps rows of `inputs` to (rows, classes), to (rows, 1) log-odds for a table
    whose target is 0 or 1, and to (rows, 1, height, width) for a mask. Frozen
    parameters have their values, trained ones any: see `load`.

    Raises:
        StudyError: GLD-C060 unknown recipe, GLD-C061 the model is unknown or does not
            fit the recipe, GLD-C103 the recipe reads other data, GLD-C104 too large;
            GLD-C100 to GLD-C102 its public weights are not here.
    """
    demand_model(study)
    _check_model(study)
    if isinstance(study.data, TableData):
        return tabular.build(_widths(study, study.data))
    from guilder_shared.models import assembly

    return assembly.build(study)


def load(weights: Mapping[str, NDArray[np.float32]], study: Study) -> "nn.Module":
    """The study's torch module with these trained weights; they are copied.

    Raises:
        StudyError: As `build` and `check`.
    """
    import torch

    check(weights, study)
    module = build(study)
    # Copied: torch must not alias, nor warn about, arrays that came read-only.
    state = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    module.load_state_dict(state, strict=False)
    return module


def demand_model(study: Study) -> None:
    """Refuse a study that has no model to look at.

    Raises:
        StudyError: GLD-C137 it asks for statistics.
    """
    if isinstance(study.data, ColumnData):
        raise StudyError(
            "GLD-C137",
            f"study {study.study.name!r} trains nothing: it asks for statistics",
            why="There is no model to check and no training to audit.",
            fix="`guilder privacy plan` shows what it costs and how noisy it is.",
        )


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


def _check_model(study: Study) -> None:
    model, recipe = study.model, tasks.recipe(study.study.recipe)
    if isinstance(study.data, ColumnData):
        return  # nothing is trained
    if model.name not in MODELS or model.name not in recipe.models:
        raise StudyError(
            "GLD-C061",
            f"model {model.name!r} is not one of recipe {study.study.recipe!r}",
            why=f"its models: {', '.join(recipe.models)}",
            fix="name one of them in [model] name",
        )
    if study.data.kind != recipe.data or _wants_classes(study):
        raise StudyError(
            "GLD-C103",
            f"recipe {study.study.recipe!r} does not read this data",
            why=f"it reads {recipe.data}, and data.kind is {study.data.kind!r}"
            if study.data.kind != recipe.data
            else "it learns classes, and data.classes is left out",
            fix="name another recipe, or other data",
        )
    if study.data.kind != "table":
        _check_size(study)


def _wants_classes(study: Study) -> bool:
    """Whether a study of images has a mask where its recipe learns classes."""
    is_mask = isinstance(study.data, ImageData) and study.data.classes is None
    return is_mask and study.model.name != "unet"


def _check_size(study: Study) -> None:
    numbers = sum(start.num_numbers for start in families.starts(study).values())
    if numbers > LARGEST_MODEL:
        raise StudyError(
            "GLD-C104",
            f"model {study.model.name!r} on this data has {numbers:,} numbers",
            why=f"at most {LARGEST_MODEL:,} are built here",
            fix="lower [model] width, or give smaller images or fewer tokens",
        )


def _widths(study: Study, data: TableData) -> tuple[int, ...]:
    return (num_inputs(data), *study.model.hidden, len(data.classes or "1"))


def _misfit(what: str) -> StudyError:
    return StudyError(
        "GLD-C062",
        what,
        why="the weights belong to another study or another version",
        fix="compare the study digests on both sides",
    )
