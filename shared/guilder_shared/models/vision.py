"""Models of images: two small CNNs, and ResNet-18 with GroupNorm.

All are a body, which turns an image into features, and a linear head. Only layers
that treat a row alone are used: no BatchNorm, nothing in place. Each exists as a list
of starting values and as a torch module with the same names. Nothing is trained here.

Source: Abadi et al. 2016 and Tramèr and Boneh 2021 for the classic CNN; Papernot et al.
2021 for tanh where gradients are clipped and noised; He et al. 2016 for ResNet-18, with
a 3 x 3 stem and no pooling after it, for images below 100 pixels; Wu and He 2018 for
GroupNorm.
"""

from typing import TYPE_CHECKING

from guilder_shared.models.starting import Starts, conv, linear, norm

if TYPE_CHECKING:
    from torch import nn

CNN_FEATURES = 1024
RESNET_FEATURES = 512
_GROUPS = 4  # of each normalisation between tanhcnn's layers
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


def tanhcnn_starts(channels: int, width: int) -> Starts:
    """The body of the CNN that is made for private training; see `tanhcnn`."""
    found, before = Starts(), channels
    for place, (after, size, _) in enumerate(_tanh_layers(width)):
        found |= conv(str(3 * place + 1), before, after, size)
        found |= norm(str(3 * place + 2), after)
        before = after
    return found


def tanhcnn(channels: int, width: int) -> "nn.Module":
    """The body of the CNN for private training: (rows, channels, h, w) to (rows, 4 w).

    An image is brought to mean 0 and variance 1 by itself, so that brightness and
    contrast of a machine do not matter; tanh keeps gradients within the clip norm; the
    mean over pixels in place of a wide layer leaves few numbers to be noised: 24,000
    with width 16.

    Args:
        channels: Of the images.
        width: Channels of the first convolution, a multiple of 4; each further one has
            twice as many.
    """
    from torch import nn

    layers: list[nn.Module] = [nn.GroupNorm(1, channels, affine=False)]
    before = channels
    for after, size, stride in _tanh_layers(width):
        layers.append(nn.Conv2d(before, after, size, stride, size // 2))
        layers += [nn.GroupNorm(_GROUPS, after), nn.Tanh()]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _tanh_layers(width: int) -> tuple[tuple[int, int, int], ...]:
    """Channels, size of the kernel, stride."""
    return ((width, 5, 2), (2 * width, 3, 2), (4 * width, 3, 1))


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
