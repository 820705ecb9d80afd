"""Coordinate-wise median and trimmed mean: some sites may send anything.

Every site counts once, whatever public size it claims. Updates wait in files and are
read block by block, so that memory does not grow with the number of sites. Values are
sorted before they are used: the order of arrival changes no byte.

Review, mathematics: a function of updates that are private already. With at most k of n
sites hostile, the median (k < n / 2) and the mean without the k' >= k largest and
smallest lie, in each coordinate, between values that honest sites sent. Honest sites
whose data differ pull the median as well: it is no mean.
Review, crash order: the files are scratch and have no name, so that however the server
ends nobody finds one site's update in them. The round is asked again and the sites send
the same bytes.

Source: Yin et al. 2018, "Byzantine-robust distributed learning".
"""

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from guilder_server.aggregate import Numbers
from guilder_shared.durable import OWNER_ONLY
from guilder_shared.messages import Weights

Values = npt.NDArray[np.float32]  # shape (sites, coordinates)


def median(values: Values) -> Numbers:
    """Of each column; of an even number of sites the mean of the two in the middle."""
    middle: Numbers = np.median(values.astype(np.float64), axis=0)
    return middle


def trimmed_mean(values: Values, num_trimmed: int) -> Numbers:
    """Of each column without its `num_trimmed` largest and smallest values.

    Raises:
        ValueError: Nobody would be left.
    """
    kept = len(values) - 2 * num_trimmed
    if kept < 1:
        raise ValueError(f"{num_trimmed} of {len(values)} at either end leave nobody")
    inner = np.sort(values, axis=0)[num_trimmed : num_trimmed + kept]
    mean: Numbers = inner.mean(axis=0, dtype=np.float64)
    return mean


class Spill:
    """The updates of one round, one after the other in one file; made empty.

    Args:
        path: Where the file is made; its name is taken away at once.
        shapes: Of the model's parameters.
        rule: From values, shape (sites, coordinates), to one per coordinate.
    """

    def __init__(
        self,
        path: Path,
        shapes: Mapping[str, tuple[int, ...]],
        rule: Callable[[Values], Numbers],
    ) -> None:
        self._rule = rule
        self._starts: dict[str, int] = {}
        self._width = 0
        for name, shape in shapes.items():
            self._starts[name] = self._width
            self._width += math.prod(shape)
        self._values: Values | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # an older server left it under its name
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self._file = os.fdopen(os.open(path, flags, OWNER_ONLY), "w+b")
        path.unlink()

    def fold(self, update: Weights) -> None:
        """Keep one site's update, checked before; its memory is free afterwards.

        Raises:
            OSError: The disk refuses, and says why.
        """
        for name in self._starts:
            flat = np.ascontiguousarray(update[name], dtype=np.float32).reshape(-1)
            self._file.write(flat.data)
        self._file.flush()

    def centre(self, name: str, block: slice) -> Numbers:
        """What the rule makes of one parameter, flattened, in one block."""
        if self._values is None:
            mapped = np.memmap(self._file, np.float32, "r")
            self._values = mapped.reshape(-1, self._width)
        start = self._starts[name]
        return self._rule(self._values[:, start + block.start : start + block.stop])

    def clear(self) -> None:
        """Give the file's room back."""
        self._values = None
        with contextlib.suppress(OSError):  # what a full disk did not take
            self._file.close()
