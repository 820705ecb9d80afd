"""Models of table rows: logistic regression and a multilayer perceptron.

Each exists twice, as public shapes with NumPy starting values and as a torch module
with the same names. This module knows no data and trains nothing.
"""

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

Shapes = dict[str, tuple[int, ...]]


def shapes(widths: tuple[int, ...]) -> Shapes:
    """Parameter shapes of linear layers with a ReLU between each two.

    Args:
        widths: Inputs, hidden layers and outputs, e.g. (30, 64, 64, 1).

    Returns:
        Names as in torch's Sequential: a linear layer at every even place.
    """
    found: Shapes = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
        found[f"{2 * layer}.weight"] = (fan_out, fan_in)
        found[f"{2 * layer}.bias"] = (fan_out,)
    return found


def initial(
    widths: tuple[int, ...], *, seed: int, prior: float | None
) -> dict[str, NDArray[np.float32]]:
    """Starting values: uniform within ±1/sqrt(fan-in), the output's bias by the prior.

    With no hidden layer the weights start at zero: the loss is convex, and any other
    start only adds noise.

    Args:
        widths: As for `shapes`.
        seed: Public; the same seed gives the same bytes.
        prior: Public base rate of the positive class, or None for one half. Without it
            a rare class costs the first rounds, and a private study has few.

    Source: He et al. 2015 for the hidden layers' scale, as torch's Linear takes it.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    is_linear = len(widths) == 2
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in shapes(widths).items():
        layer = int(name.split(".")[0]) // 2
        bound = 0.0 if is_linear else 1 / math.sqrt(widths[layer])
        weights[name] = generator.uniform(-bound, bound, shape).astype(np.float32)
    log_odds = 0.0 if prior is None else math.log(prior / (1 - prior))
    weights[f"{2 * (len(widths) - 2)}.bias"] = np.full(widths[-1], log_odds, np.float32)
    return weights


def build(widths: tuple[int, ...]) -> "nn.Sequential":
    """The torch module; it maps (rows, inputs) to (rows, outputs).

    Its own starting values are torch's and random; load `initial` over them.
    """
    from torch import nn

    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
