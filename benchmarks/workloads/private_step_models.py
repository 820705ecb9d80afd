"""Models that `private_step.py` times, each with a batch; nothing is trained here."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

Batch = tuple[Tensor, Tensor]


def mlp() -> tuple[nn.Module, Batch]:
    """A table's model: 30 columns, two hidden layers of 256."""
    layers = [nn.Linear(30, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(256, 2))
    return model, (torch.randn(256, 30), torch.randint(2, (256,)))


def cnn() -> tuple[nn.Module, Batch]:
    """The classic one: 32 and 64 channels, then 1024; 4.3 million numbers."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4096, 1024),
        nn.ReLU(),
        nn.Linear(1024, 2),
    )
    return model, (torch.randn(64, 3, 32, 32), torch.randint(2, (64,)))


class Block(nn.Module):
    """A residual block with GroupNorm."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(32, after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(32, after)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            narrow = nn.Conv2d(before, after, 1, stride, bias=False)
            self.short = nn.Sequential(narrow, nn.GroupNorm(32, after))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, before, h, w) to (rows, after, h / stride, w / stride)."""
        y = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(y)) + self.short(x))


def resnet18() -> tuple[nn.Module, Batch]:
    """ResNet-18 for small images, GroupNorm throughout; 11 million numbers."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False)]
    layers += [nn.GroupNorm(32, 64), nn.ReLU()]
    before = 64
    for after, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(before, after, stride), Block(after, after, 1)]
        before = after
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(*layers), (
        torch.randn(32, 3, 32, 32),
        torch.randint(10, (32,)),
    )


def _double(before: int, after: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width in (before, after):
        layers += [nn.Conv2d(width, after, 3, padding=1)]
        layers += [nn.GroupNorm(8, after), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Three levels of 16, 32 and 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([_double(1, 16), _double(16, 32), _double(32, 64)])
        self.up = nn.ModuleList([_double(96, 32), _double(48, 16)])
        self.out = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, 1, h, w) to (rows, 1, h, w)."""
        first = self.down[0](x)
        second = self.down[1](F.max_pool2d(first, 2))
        third = self.down[2](F.max_pool2d(second, 2))
        wide = F.interpolate(third, scale_factor=2.0, mode="nearest")
        second = self.up[0](torch.cat([wide, second], 1))
        wide = F.interpolate(second, scale_factor=2.0, mode="nearest")
        return self.out(self.up[1](torch.cat([wide, first], 1)))  # type: ignore[no-any-return]


def unet() -> tuple[nn.Module, Batch]:
    """Segmentation of 64 x 64 pixels."""
    masks = (torch.randn(8, 1, 64, 64) > 0).float()
    return UNet(), (torch.randn(8, 1, 64, 64), masks)


class Low(nn.Module):
    """A frozen Linear layer and a trained one of rank 8."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.base = nn.Linear(before, after).requires_grad_(False)
        self.down = nn.Linear(before, 8, bias=False)
        self.up = nn.Linear(8, after, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., before) to (..., after)."""
        return self.base(x) + self.up(self.down(x))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """One layer of an encoder, 4 heads."""

    def __init__(self, width: int, linear: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = linear(width, 3 * width), linear(width, width)
        self.wide, self.narrow = linear(width, 4 * width), linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, places, width) to the same."""
        rows, places, width = x.shape
        mixed = self.mix(self.norm1(x)).view(rows, places, 3, 4, width // 4)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / math.sqrt(width // 4)
        found = (torch.softmax(scores, -1) @ value).transpose(1, 2)
        x = x + self.out(found.reshape(rows, places, width))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Two layers of width 128 on 64 tokens of 5000."""

    def __init__(self, linear: Callable[[int, int], nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(5000, 128), nn.Embedding(64, 128)
        self.layers = nn.Sequential(Layer(128, linear), Layer(128, linear))
        self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 4)

    def forward(self, ids: Tensor) -> Tensor:
        """(rows, places) to (rows, 4)."""
        places = torch.arange(ids.shape[1]).repeat(ids.shape[0], 1)
        x = self.layers(self.tokens(ids) + self.positions(places))
        return self.head(self.norm(x).mean(1))  # type: ignore[no-any-return]


def encoder() -> tuple[nn.Module, Batch]:
    """Text, all trained."""
    return Encoder(), (torch.randint(5000, (32, 64)), torch.randint(4, (32,)))


def lora() -> tuple[nn.Module, Batch]:
    """Text, adapters of rank 8 and the head trained."""
    model = Encoder(Low)
    for name, p in model.named_parameters():
        p.requires_grad_(".down." in name or ".up." in name or name.startswith("head."))
    return model, (torch.randint(5000, (32, 64)), torch.randint(4, (32,)))


MODELS = {f.__name__: f for f in (mlp, cnn, unet, encoder, lora, resnet18)}
