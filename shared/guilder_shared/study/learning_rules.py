"""What the optional keys of [training] must agree on, each rule for itself."""

from typing import Any

from guilder_shared.settings.mistakes import Contradiction
from guilder_shared.study.parts import Model, Training

_OF_IMAGES = ("flip", "shift")
_OF_TABLES = ("mask",)


def optimizer_has_its_keys(training: Training) -> list[Contradiction]:
    """A key of the other optimizer would be read by nobody."""
    keys = {"sgd": ("betas", "floor"), "adam": ("momentum",)}[training.optimizer]
    what = f'given, with training.optimizer = "{training.optimizer}"'
    fix = "Remove it, or name the optimizer that it is for."
    return [
        Contradiction(("training", key), what, fix, "GLD-C120")
        for key in keys
        if getattr(training, key) is not None
    ]


def turns_are_long_enough(training: Training) -> list[Contradiction]:
    """What lives inside a turn needs a turn of several steps."""
    if training.local_steps > 1:
        return []
    named = {
        "adam": training.optimizer == "adam",
        "momentum": training.momentum is not None,
        "adaptive_clip": training.adaptive_clip is not None,
    }
    fix = "Write local_steps = 2 or more, or remove it."
    return [
        Contradiction(
            ("training", "local_steps"),
            f"is 1; {key} learns within a turn and is forgotten after it",
            fix,
            "GLD-C121",
        )
        for key, given in named.items()
        if given
    ]


def copies_fit_the_rows(data: Any, training: Training) -> list[Contradiction]:
    """A change of copies that this kind of data does not know."""
    augment = training.augment
    if augment is None:
        return []
    unknown = {
        "table": _OF_IMAGES,
        "images": _OF_TABLES,
    }.get(data.kind, (*_OF_IMAGES, *_OF_TABLES, "jitter"))
    if data.kind == "images" and data.classes is None:
        unknown += _OF_IMAGES  # a mask would have to move with its image
    fix = "Tables know jitter and mask; images flip, shift and jitter; texts nothing."
    return [
        Contradiction(
            ("training", "augment", key),
            f'given, with data.kind = "{data.kind}"',
            fix,
            "GLD-C122",
        )
        for key in unknown
        if getattr(augment, key)
    ]


def copies_come_before_features(
    model: Model, training: Training
) -> list[Contradiction]:
    """Where a head alone is trained, a row's features are computed once a turn."""
    if training.augment is None or model.train != "head":
        return []
    what = 'given, with model.train = "head", whose rows are features already'
    fix = 'Remove it, or write train = "bias" or "all".'
    return [Contradiction(("training", "augment"), what, fix, "GLD-C122")]
