"""What [model] and [data] must agree on: which keys a model has, and what it can read.

Whether a recipe takes a model at all is the registry's to say. This module reads no
file and builds nothing.
"""

import itertools

from guilder_shared.settings.mistakes import Contradiction
from guilder_shared.study.data import (
    CategoryColumn,
    ColumnData,
    Data,
    ImageData,
    TableData,
    TextData,
)
from guilder_shared.study.parts import Model

LARGEST_MODEL = 2**28  # weights: 1 GiB in float32

# The keys that a model must have; it may have no other of `_KEYS`, save `train`.
_NEEDED: dict[str, tuple[str, ...]] = {
    "logistic": (),
    "mlp": ("hidden",),
    "cnn": ("width",),
    "tanhcnn": ("width",),
    "resnet18": (),
    "unet": ("width",),
    "encoder": ("width",),
    "minilm": ("pretrained",),
}
_KEYS = ("hidden", "width", "pretrained")
_TRAINS = {
    "cnn": ("all", "head", "bias"),
    "tanhcnn": ("all", "head", "bias"),
    "resnet18": ("all", "head", "bias"),
    "unet": ("all", "bias"),
    "encoder": ("all", "head", "bias", "lora"),
    "minilm": ("all", "head", "bias", "lora"),
}
_WIDTHS = {"unet": 8, "tanhcnn": 4}  # a width is a multiple; of others, of 2
_EXAMPLES = {
    "hidden": "hidden = [64, 64]",
    "width": "width = 32",
    "pretrained": 'pretrained = "…", the SHA-256 of the weights',
}


def model_fits(data: Data, model: Model) -> list[Contradiction]:
    """Every mistake between a model's keys, and between it and the data."""
    if isinstance(data, ColumnData):
        return []
    found = _keys(model) + _trains(model)
    if isinstance(data, TableData):
        found += _prior(data, model)
        return found or _not_too_large(data, model)
    if model.prior is not None:
        what = f'given, with data.kind = "{data.kind}"'
        found.append(Contradiction(("model", "prior"), what, "Remove it."))
    if isinstance(data, ImageData):
        return found + _images(data, model)
    return found + _texts(data, model)


def _keys(model: Model) -> list[Contradiction]:
    if model.name not in _NEEDED:
        return []  # the registry names the models there are
    found = []
    for key in _KEYS:
        given, needed = bool(getattr(model, key)), key in _NEEDED[model.name]
        if given == needed:
            continue
        what = f'{"missing" if needed else "given"}, with name = "{model.name}"'
        fix = f"Write {_EXAMPLES[key]}." if needed else "Remove it."
        found.append(Contradiction(("model", key), what, fix))
    unit = _WIDTHS.get(model.name, 2)
    if model.width and model.width % unit:
        what = f"is {model.width}, not a multiple of {unit}"
        found.append(Contradiction(("model", "width"), what, "Write width = 32."))
    return found


def _trains(model: Model) -> list[Contradiction]:
    found = []
    allowed = _TRAINS.get(model.name, ())
    if model.train is not None and model.train not in allowed:
        what = f'is "{model.train}", with name = "{model.name}"'
        known = ", ".join(f'"{each}"' for each in allowed)
        fix = f"Write one of {known}." if known else "Remove it: all is trained."
        found.append(Contradiction(("model", "train"), what, fix))
    if (model.rank is not None) != (model.train == "lora"):
        what = "missing" if model.rank is None else "given"
        what += f', with train = "{model.train or "all"}"'
        fix = 'Write train = "lora" with rank = 8, or no rank.'
        found.append(Contradiction(("model", "rank"), what, fix))
    is_headless = model.name in _NEEDED and "head" not in allowed
    if model.head_bias is not None and is_headless:
        what = f'given, with name = "{model.name}", which has no head of its own'
        found.append(Contradiction(("model", "head_bias"), what, "Remove it."))
    return found


def _images(data: ImageData, model: Model) -> list[Contradiction]:
    if model.name != "unet":
        return []
    found = []
    if data.classes is not None:
        what = 'given, with model.name = "unet", which learns a mask'
        fix = "Remove it, and name the mask's column as target."
        found.append(Contradiction(("data", "classes"), what, fix))
    for side in ("height", "width"):
        if getattr(data, side) % 4:
            what = f"is {getattr(data, side)}; unet halves it twice"
            fix = "Give images whose sides are multiples of 4."
            found.append(Contradiction(("data", side), what, fix))
    return found


def _texts(data: TextData, model: Model) -> list[Contradiction]:
    if model.name != "minilm" or data.words == "wordpiece":
        return []
    what = f'is "{data.words}"; minilm was trained on word pieces'
    return [Contradiction(("data", "words"), what, 'Write words = "wordpiece".')]


def _prior(data: TableData, model: Model) -> list[Contradiction]:
    """One rate cannot set the bias of several outputs."""
    if model.prior is None or data.classes is None:
        return []
    what = "given, with data.classes"
    fix = "Remove it: every class starts alike."
    return [Contradiction(("model", "prior"), what, fix)]


def _not_too_large(data: TableData, model: Model) -> list[Contradiction]:
    inputs = sum(
        len(column.values) if isinstance(column, CategoryColumn) else 1
        for column in data.columns.values()
    )
    widths = [inputs, *model.hidden, len(data.classes or "1")]
    weights = sum((before + 1) * after for before, after in itertools.pairwise(widths))
    if weights <= LARGEST_MODEL:
        return []
    what = f"{inputs:,} inputs and these layers make {weights:,} weights"
    fix = f"Give fewer values or smaller layers: at most {LARGEST_MODEL:,} weights."
    return [Contradiction(("model", "hidden"), what, fix)]
