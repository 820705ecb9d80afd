"""The torch module of U-Net; it imports torch, `unet` does not.

No operation changes a tensor in place. This module knows no study.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from guilder_shared.models.unet import GROUPS, pairs


class UNet(nn.Module):
    """Down twice, up twice.

    Args:
        channels: Of the images.
        width: Channels at full resolution, a multiple of 8.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom, self.up2, self.up1 = (
            _pair(*each) for each in pairs(channels, width).values()
        )
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, channels, h, w) to (rows, 1, h, w)."""
        full = self.down1(x)
        half = self.down2(F.max_pool2d(full, 2))
        quarter = self.bottom(F.max_pool2d(half, 2))
        half = self.up2(torch.cat([_doubled(quarter), half], 1))
        full = self.up1(torch.cat([_doubled(half), full], 1))
        found: Tensor = self.head(full)
        return found


def _pair(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan in (before, after):
        layers += [nn.Conv2d(fan, after, 3, padding=1, bias=False)]
        layers += [nn.GroupNorm(GROUPS, after), nn.ReLU()]
    return nn.Sequential(*layers)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
