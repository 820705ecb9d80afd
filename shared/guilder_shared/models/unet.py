"""U-Net with GroupNorm: one log-odds for each pixel of an image.

Three resolutions; what the way down saw is joined on the way up. It exists as a list of
starting values and, in `segmenter`, as a torch module with the same names. Nothing is
trained here.

Source: Ronneberger et al. 2015, with GroupNorm (Wu and He 2018) because BatchNorm mixes
rows, and nearest upsampling in place of transposed convolutions.
"""

from guilder_shared.models.starting import Starts, conv, norm

GROUPS = 8


def pairs(channels: int, width: int) -> dict[str, tuple[int, int]]:
    """Channels in and out of each pair of convolutions."""
    return {
        "down1": (channels, width),
        "down2": (width, 2 * width),
        "bottom": (2 * width, 4 * width),
        "up2": (6 * width, 2 * width),
        "up1": (3 * width, width),
    }


def starts(channels: int, width: int) -> Starts:
    """All parameters.

    Args:
        channels: Of the images.
        width: Channels at full resolution, a multiple of 8.
    """
    found: Starts = {}
    for name, (before, after) in pairs(channels, width).items():
        for place, fan in ((0, before), (3, after)):
            # no bias: the normalisation behind it takes it out again
            found |= conv(f"{name}.{place}", fan, after, 3, bias=False)
            found |= norm(f"{name}.{place + 1}", after)
    return found | conv("head", width, 1, 1)
