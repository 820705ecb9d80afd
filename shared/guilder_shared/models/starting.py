"""Where a model's numbers start: names, shapes and first values without torch.

Models are listed here parameter by parameter, in the order and under the names of
their torch modules, so that a server starts and checks them without loading torch.
This module builds no module and trains nothing.

Source: the bounds are those of torch's own layers (He et al. 2015, a = sqrt(5)).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Start:
    """How one parameter starts.

    Attributes:
        shape: As torch has it.
        kind: Drawn from a law with `scale`, or a constant.
        scale: The bound of "uniform", the standard deviation of "normal".
    """

    shape: tuple[int, ...]
    kind: Literal["uniform", "normal", "ones", "zeros"]
    scale: float = 0.0

    @property
    def num_numbers(self) -> int:
        """How many numbers it holds; exact whatever the shape."""
        return math.prod(self.shape)


Starts = dict[str, Start]


def linear(name: str, fan_in: int, fan_out: int, *, bias: bool = True) -> Starts:
    """A Linear layer: uniform within ±1/sqrt(fan-in)."""
    return _weighted(name, (fan_out, fan_in), fan_in, bias=bias)


def flat_linear(name: str, fan_in: int, fan_out: int, *, bias: bool = True) -> Starts:
    """A Linear layer that starts at zero: the last one, whose loss is convex in it."""
    found = {f"{name}.weight": Start((fan_out, fan_in), "zeros")}
    return found | ({f"{name}.bias": Start((fan_out,), "zeros")} if bias else {})


def conv(name: str, before: int, after: int, size: int, *, bias: bool = True) -> Starts:
    """A two-dimensional convolution with a square kernel, as `linear`."""
    shape = (after, before, size, size)
    return _weighted(name, shape, before * size * size, bias=bias)


def norm(name: str, width: int) -> Starts:
    """A normalisation's scale and shift: ones and zeros."""
    return {
        f"{name}.weight": Start((width,), "ones"),
        f"{name}.bias": Start((width,), "zeros"),
    }


def table(name: str, rows: int, width: int) -> Starts:
    """An embedding table, as BERT starts it: normal with deviation 0.02."""
    return {f"{name}.weight": Start((rows, width), "normal", 0.02)}


def flat_table(name: str, rows: int, width: int) -> Starts:
    """An embedding table that starts at zero."""
    return {f"{name}.weight": Start((rows, width), "zeros")}


def dense(name: str, fan_in: int, fan_out: int) -> Starts:
    """A Linear layer, as BERT starts it: weights as in a table, no bias yet."""
    return {
        f"{name}.weight": Start((fan_out, fan_in), "normal", 0.02),
        f"{name}.bias": Start((fan_out,), "zeros"),
    }


def draw(starts: Mapping[str, Start], *, seed: int) -> dict[str, NDArray[np.float32]]:
    """The values, float32.

    Args:
        starts: By name; the order matters.
        seed: Public; the same seed gives the same bytes.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    return {name: _values(start, generator) for name, start in starts.items()}


def _weighted(name: str, shape: tuple[int, ...], fan_in: int, *, bias: bool) -> Starts:
    bound = 1 / math.sqrt(fan_in)
    found = {f"{name}.weight": Start(shape, "uniform", bound)}
    if bias:
        found[f"{name}.bias"] = Start(shape[:1], "uniform", bound)
    return found


def _values(start: Start, generator: np.random.Generator) -> NDArray[np.float32]:
    if start.kind == "uniform":
        drawn = generator.uniform(-start.scale, start.scale, start.shape)
        return drawn.astype(np.float32)
    if start.kind == "normal":
        return generator.normal(0.0, start.scale, start.shape).astype(np.float32)
    return np.full(start.shape, 1.0 if start.kind == "ones" else 0.0, np.float32)
