"""Copies of a row, each a little changed: one clipped gradient learns from all of them.

A row's copies are one unit and their losses are averaged, so a copy more costs time and
no epsilon. This module clips nothing and draws no batch.

Review, mathematics: a copy is a function of its own row, of public constants and of a
keystream that no row enters. A unit's gradient, however made, is clipped to C as a
whole: the sensitivity is the same for any number of copies, and the event too.
Review, crash order: in memory only; the key is of this turn's attempt.

Source: De et al. 2022, section 3.2, augmentation multiplicity.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from guilder_shared.privacy.sampling import Keystream
from guilder_shared.study import CategoryColumn, Study, TableData
from guilder_shared.study.learning import Augment
from guilder_shared.training.draws import Draw

Floats = NDArray[np.float32]
Uniforms = NDArray[np.float64]

Losses = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class MeanLosses:
    """A recipe's losses, each divided by the number of copies: their mean by unit.

    Two of the same are equal, as whoever remembers a trial of them expects.

    Attributes:
        losses: One loss a row.
        copies: Rows that are copies of one.
    """

    losses: Losses
    copies: int

    def __call__(self, outputs: Any, targets: Any) -> Any:
        """One loss for each copy, shape (rows,)."""
        return self.losses(outputs, targets) / self.copies


class Copies:
    """How the copies of a study's rows are made.

    Args:
        how: The study's [training.augment].
        table: The contract of a table, which says which inputs are numbers and which
            stand together as one category; None for images.
    """

    def __init__(self, how: Augment, table: TableData | None) -> None:
        self._how = how
        self._columns = None if table is None else _columns(table)

    @classmethod
    def of(cls, study: Study) -> Self | None:
        """As the study says; None where it asks for no copies."""
        if study.training.augment is None:
            return None
        table = study.data if study.data.kind == "table" else None
        return cls(study.training.augment, table)

    @property
    def num(self) -> int:
        """Copies of each row."""
        return self._how.copies

    def make(self, inputs: Floats, places: NDArray[np.int64], key: bytes) -> Floats:
        """Change every row in its own way.

        Args:
            inputs: Shape (rows, inputs), or (rows, channels, height, width), float32;
                numbers within [-1, 1]. A copy a row, already repeated.
            places: Number of each row among all copies of this step, shape (rows,):
                the same place and key change a row in the same way, in whatever pass.
            key: 32 bytes, used for the copies of one step only.

        Returns:
            Changed copies; numbers stay within [-1, 1], a category stays one or none.
        """
        if not len(inputs):
            return inputs
        if self._columns is not None:
            return self._table(inputs, places, key)
        return self._images(inputs, places, key)

    def _table(self, rows: Floats, places: NDArray[np.int64], key: bytes) -> Floats:
        assert self._columns is not None
        column_of, is_number = self._columns
        num_columns = int(column_of[-1]) + 1
        drawn = _uniforms(key, places, len(column_of) + num_columns)
        made = _jittered(rows, drawn[:, : len(column_of)], self._how.jitter, is_number)
        if self._how.mask:
            gone = drawn[:, len(column_of) :] < self._how.mask
            made[gone[:, column_of]] = 0.0  # the centre of a number, no value at all
        return made

    def _images(self, rows: Floats, places: NDArray[np.int64], key: bytes) -> Floats:
        size = int(np.prod(rows.shape[1:])) if self._how.jitter else 0
        drawn = _uniforms(key, places, size + 3)
        made = rows.copy()
        if self._how.flip:
            mirrored = drawn[:, 0] < 0.5
            made[mirrored] = made[mirrored][..., ::-1]
        if self._how.shift:
            span = 2 * self._how.shift + 1
            steps = (drawn[:, 1:3] * span).astype(np.int64) - self._how.shift
            for row, (down, right) in zip(made, steps.tolist(), strict=True):
                row[:] = _shifted(row, down, right)
        if size:
            moves = drawn[:, 3:].reshape(made.shape)
            made = _jittered(made, moves, self._how.jitter, None)
        return made


def repeated(draw: Draw, copies: int) -> Draw:
    """The draw with every row several times, one after the other, still one unit.

    Args:
        draw: Of one step.
        copies: 1 or more.
    """
    units = np.arange(len(draw)) if draw.units is None else draw.units
    return Draw(np.repeat(draw.rows, copies), np.repeat(units, copies))


def _columns(data: TableData) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The column of each input, and whether it is a number."""
    widths = [
        len(c.values) if isinstance(c, CategoryColumn) else 1
        for c in data.columns.values()
    ]
    number = [not isinstance(c, CategoryColumn) for c in data.columns.values()]
    return np.repeat(np.arange(len(widths)), widths), np.repeat(number, widths)


def _jittered(
    rows: Floats,
    uniforms: Uniforms,
    most: float | None,
    is_number: NDArray[np.bool_] | None,
) -> Floats:
    """Numbers moved by up to `most`, within [-1, 1]."""
    if not most:
        return rows.copy()
    moves = ((2 * uniforms - 1) * most).astype(np.float32)
    if is_number is not None:
        moves[:, ~is_number] = 0.0
    moved: Floats = np.clip(rows + moves, -1, 1)
    return moved


def _shifted(image: Floats, down: int, right: int) -> Floats:
    """The image moved; what comes in repeats the edge."""
    height, width = image.shape[-2:]
    lines = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    moved: Floats = image[..., lines[:, None], columns]
    return moved


def _uniforms(key: bytes, places: NDArray[np.int64], num: int) -> Uniforms:
    """`num` numbers in [0, 1) for each place, those of a place always the same."""
    width = num + num % 2  # a counter stands for two words
    found = np.empty((len(places), num))
    # Places that follow one another are read from one stream.
    starts = np.flatnonzero(np.diff(places, prepend=places[0] - 2) != 1)
    for start, end in zip(starts, [*starts[1:], len(places)], strict=True):
        stream = Keystream(key, first_word=int(places[start]) * width)
        words = stream.words((end - start) * width).reshape(-1, width)[:, :num]
        found[start:end] = (words >> np.uint64(11)) * 2.0**-53
    return found
