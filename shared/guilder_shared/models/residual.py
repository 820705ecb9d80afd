"""The torch modules of ResNet with GroupNorm; it imports torch, `vision` does not.

No operation changes a tensor in place, and no layer sees more than one row. This module
knows no study.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

_GROUPS = 32


class Block(nn.Module):
    """Two convolutions and what goes past them.

    Args:
        before: Channels in.
        after: Channels out, a multiple of 32.
        stride: Of the first convolution and of the way past.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(_GROUPS, after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(_GROUPS, after)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            past = nn.Conv2d(before, after, 1, stride, bias=False)
            self.short = nn.Sequential(past, nn.GroupNorm(_GROUPS, after))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, before, h, w) to (rows, after, h / stride, w / stride)."""
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.short(x))


class ResNet(nn.Module):
    """Stages of two blocks each, then the mean over the image.

    Args:
        channels: Of the images.
        stages: Channels and first stride of each stage.
    """

    def __init__(self, channels: int, stages: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        self.stem_norm = nn.GroupNorm(_GROUPS, 64)
        blocks: list[nn.Module] = []
        before = 64
        for after, stride in stages:
            blocks += [Block(before, after, stride), Block(after, after, 1)]
            before = after
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, channels, h, w) to (rows, channels of the last stage)."""
        y: Tensor = self.blocks(F.relu(self.stem_norm(self.stem(x))))
        return y.mean((2, 3))
