"""What each model of images or texts is made of, read off a study, without torch.

A family is a body, which turns a row into features, and a head; U-Net is whole. The
registry asks here for parameters, for what goes in, and for modules. Nothing is
checked against a recipe here and nothing is trained.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from guilder_shared.models import adapters, text, unet, vision
from guilder_shared.models.starting import Start, Starts, flat_linear, linear
from guilder_shared.study import ImageData, Study, TextData

if TYPE_CHECKING:
    from torch import nn

DEFAULT_RANK = 8


@dataclass(frozen=True)
class Inputs:
    """What a model reads for one row; public.

    Attributes:
        shape: Of one row.
        tokens: How many tokens there are where a row is tokens, int64 from 0; None
            where it is float32 numbers, in [-1, 1] unless they are features.
        classes: How many classes there are; 2 with one log-odds for tables of 0 and 1.
        mask: Whether the target is a mask of the row's last two sides.
    """

    shape: tuple[int, ...]
    tokens: int | None
    classes: int
    mask: bool = False


def sizes(study: Study) -> text.Sizes:
    """The public shape of the study's text encoder."""
    data = study.data
    assert isinstance(data, TextData)
    if study.model.name == "minilm":
        return text.MINILM
    vocabulary = data.vocabulary or text.MINILM.vocabulary
    return text.small(vocabulary, data.max_tokens, study.model.width or 2)


def num_features(study: Study) -> int:
    """Numbers that the body gives for one row."""
    if isinstance(study.data, TextData):
        return sizes(study).width
    if study.model.name == "tanhcnn":
        return 4 * (study.model.width or 4)
    cnn = study.model.name == "cnn"
    return vision.CNN_FEATURES if cnn else vision.RESNET_FEATURES


def row(study: Study) -> Inputs:
    """What the whole model reads, its body included."""
    data = study.data
    if isinstance(data, TextData):
        return Inputs((data.max_tokens,), sizes(study).vocabulary, len(data.classes))
    assert isinstance(data, ImageData)
    shape = (data.channels, data.height, data.width)
    return Inputs(shape, None, len(data.classes or "01"), data.classes is None)


def starts(study: Study) -> Starts:
    """Every parameter of the whole model without adapters."""
    if study.model.name == "unet":
        return unet.starts(row(study).shape[0], study.model.width or 8)
    inside = {f"body.{name}": start for name, start in _body_starts(study).items()}
    # A head alone starts at zero, its loss is convex; below one, all must move at once.
    head = flat_linear if study.model.train in ("head", "lora") else linear
    bias = has_head_bias(study)
    return inside | head("head", num_features(study), row(study).classes, bias=bias)


def trained(study: Study) -> dict[str, Start]:
    """The parameters that travel: those that are trained."""
    model = study.model
    return adapters.trained(starts(study), model.train or "all", rank(study))


def has_head_bias(study: Study) -> bool:
    """Whether the last layer adds a constant to each class.

    Of features of length 1 a constant makes the gradient longer by the root of 2, and
    with it the noise that hides it: without, the same promise needs half the rows.
    """
    return study.model.head_bias is not False


def rank(study: Study) -> int:
    """Of the adapters."""
    return study.model.rank or DEFAULT_RANK


def body(study: Study) -> "nn.Module":
    """The body as a torch module, its numbers torch's own."""
    if isinstance(study.data, TextData):
        from guilder_shared.models.encoder import Encoder

        return Encoder(sizes(study))
    channels, high, wide = row(study).shape
    if study.model.name == "cnn":
        return vision.cnn((channels, high, wide), study.model.width or 2)
    if study.model.name == "tanhcnn":
        return vision.tanhcnn(channels, study.model.width or 4)
    return vision.resnet18(channels)


def _body_starts(study: Study) -> Starts:
    if isinstance(study.data, TextData):
        return text.starts(sizes(study))
    channels, high, wide = row(study).shape
    if study.model.name == "cnn":
        return vision.cnn_starts((channels, high, wide), study.model.width or 2)
    if study.model.name == "tanhcnn":
        return vision.tanhcnn_starts(channels, study.model.width or 4)
    return vision.resnet18_starts(channels)
