"""Looking at private steps from inside: for the self-test, on made-up rows only.

A step tells what it read, what it summed before the noise, and what its optimizer got.
Where nobody watches, and that is every turn, telling is one look at a variable and
nothing is kept. This module checks nothing; a test holds that the self-test alone opens
`watching`.

Review, mathematics: nothing here changes a number.
Review, crash order: in memory only. A sum before noise is secret, hence made-up rows.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_NONE = np.empty(0, dtype=np.float64)


@dataclass
class Seen:
    """One step, from inside.

    Attributes:
        rows: The rows it read, shape (rows,), in the order of reading; where a row has
            copies, each was read.
        total: The clipped sum before noise, shape (numbers,), float64.
        given: What the optimizer got, in the order of `total`, float64.
    """

    rows: NDArray[np.int64]
    total: NDArray[np.float64]
    given: NDArray[np.float64]


_seen: ContextVar[list[Seen] | None] = ContextVar("seen", default=None)


@contextmanager
def watching() -> Iterator[list[Seen]]:
    """Every step that this thread takes inside is appended to the list."""
    steps: list[Seen] = []
    token = _seen.set(steps)
    try:
        yield steps
    finally:
        _seen.reset(token)


def begins() -> None:
    """Tell that a step begins."""
    if (steps := _seen.get()) is not None:
        steps.append(Seen(np.empty(0, np.int64), _NONE, _NONE))


def read(rows: NDArray[np.int64]) -> None:
    """Tell that these rows were read for the step."""
    if steps := _seen.get():
        steps[-1].rows = np.concatenate([steps[-1].rows, rows])


def watched() -> bool:
    """Whether somebody looks on."""
    return _seen.get() is not None


def rows_read() -> NDArray[np.int64]:
    """What was told of the step so far; nothing where nobody looks on."""
    steps = _seen.get()
    return steps[-1].rows if steps else np.empty(0, np.int64)


def summed(total: "Tensor") -> None:
    """Tell the clipped sum, before noise."""
    if steps := _seen.get():
        steps[-1].total = total.cpu().numpy().astype(np.float64)


def gave(grads: "Iterable[Tensor | None]") -> None:
    """Tell what the optimizer is about to learn from."""
    if steps := _seen.get():
        flat = [g.reshape(-1).double().cpu().numpy() for g in grads if g is not None]
        steps[-1].given = np.concatenate(flat)
