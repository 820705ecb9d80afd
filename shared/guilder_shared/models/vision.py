"""Models of images: the classic small CNN, and ResNet-18 with GroupNorm.

Both are a body, which turns an image into features, and a linear head. Only layers
that treat a row alone are used: no BatchNorm, nothing in place. Each exists as a list
of starting values and as a torch module with the same names. Nothing is trained here.

Source: Abadi et al. 2016 and Tramèr and Boneh 2021 for the small CNN; He et al. 2016
for ResNet-18, with a 3 x 3 stem and no pooling after it, for images below 100 pixels;
Wu and He 2018 for GroupNorm.
"""

from typing import TYPE_CHECKING

from guilder_shared.models.starting import Starts, conv, linear, norm

if TYPE_CHECKING:
    from torch import nn

CNN_FEATURES = 1024
RESNET_FEATURES = 512
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels, stride of the first block


def cnn_starts(shape: tuple[int, int, int], width: int) -> Starts:
    """The classic CNN's body.

    Args:
        shape: Channels, height and width of an image; sides of at least 4.
        width: Channels of the first convolution; the second has twice as many.
    """
    channels, high, wide = shape
    flat = 2 * width * (high // 4) * (wide // 4)
    return (
        conv("0", channels, width, 3)
        | conv("3", width, 2 * width, 3)
        | linear("7", flat, CNN_FEATURES)
    )


def cnn(shape: tuple[int, int, int], width: int) -> "nn.Module":
    """The classic CNN's body: (rows, channels, h, w) to (rows, 1024).

    With 3 x 32 x 32 and width 32 the 4.3 million numbers of the literature.
    """
    from torch import nn

    channels, high, wide = shape
    flat = 2 * width * (high // 4) * (wide // 4)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(flat, CNN_FEATURES),
        nn.ReLU(),
    )


def resnet18_starts(channels: int) -> Starts:
    """ResNet-18's body, 11 million numbers."""
    found = conv("stem", channels, 64, 3, bias=False) | norm("stem_norm", 64)
    before = 64
    for stage, (after, _) in enumerate(_STAGES):
        for block in range(2):
            name = f"blocks.{2 * stage + block}"
            found |= conv(f"{name}.first", before, after, 3, bias=False)
            found |= norm(f"{name}.first_norm", after)
            found |= conv(f"{name}.second", after, after, 3, bias=False)
            found |= norm(f"{name}.second_norm", after)
            if before != after:
                found |= conv(f"{name}.short.0", before, after, 1, bias=False)
                found |= norm(f"{name}.short.1", after)
            before = after
    return found


def resnet18(channels: int) -> "nn.Module":
    """ResNet-18's body: (rows, channels, h, w) to (rows, 512)."""
    from guilder_shared.models.residual import ResNet

    return ResNet(channels, _STAGES)
