"""Small studies of images and texts."""

from collections.abc import Callable
from typing import Any

import pytest

from guilder_shared.study import Study

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
MASKS = {key: value for key, value in IMAGES.items() if key != "classes"}
CNN = {"name": "cnn", "width": 8}
ENCODER = {"name": "encoder", "width": 8}
UNET = {"name": "unet", "width": 8}

# recipe, data and model of every kind there is, small
SMALL: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "cnn": ("image-classification", IMAGES, CNN),
    "cnn-head": ("image-classification", IMAGES, CNN | {"train": "head"}),
    "cnn-bias": ("image-classification", IMAGES, CNN | {"train": "bias"}),
    "tanhcnn": ("image-classification", IMAGES, {"name": "tanhcnn", "width": 8}),
    "resnet18": ("image-classification", IMAGES, {"name": "resnet18"}),
    "unet": ("image-segmentation", MASKS, UNET),
    "unet-bias": ("image-segmentation", MASKS, UNET | {"train": "bias"}),
    "encoder": ("text-classification", TEXTS, ENCODER),
    "encoder-head": ("text-classification", TEXTS, ENCODER | {"train": "head"}),
    "encoder-head-without-bias": (
        "text-classification",
        TEXTS,
        ENCODER | {"train": "head", "head_bias": False},
    ),
    "encoder-bias": ("text-classification", TEXTS, ENCODER | {"train": "bias"}),
    "encoder-lora": (
        "text-classification",
        TEXTS,
        ENCODER | {"train": "lora", "rank": 2},
    ),
}


def make(recipe: str, data: dict[str, Any], model: dict[str, Any]) -> Study:
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "s", "recipe": recipe, "purpose": "p"},
            "data": data,
            "model": model,
            "training": {
                "rounds": 2,
                "local_steps": 1,
                "sample_rate": 1.0,
                "learning_rate": 1.0,
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


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest) -> Study:
    """A small study of every model and of every way to train it."""
    return make(*SMALL[request.param])


@pytest.fixture(scope="session")
def made() -> Callable[..., Study]:
    """A small study by its name in `SMALL`; keywords change its [model]."""

    def one(small: str, /, **change: Any) -> Study:
        recipe, data, model = SMALL[small]
        return make(recipe, data, model | change)

    return one


@pytest.fixture(scope="session")
def study_with() -> Callable[..., Study]:
    """A study of this recipe, data and model."""
    return make
