"""Which of a site's units are held out of training, to be measured on.

Decided for each unit by itself. This module measures nothing and trains nothing.

Review, mathematics. A unit is held out where a keyed hash of its own identity lies
below a public share: a person by the person's number, a record by its own encoded row,
so that equal rows go one way. Who else is there moves nobody, and nothing of a unit
changes sides while the key stays: a unit is trained on or measured, never both, so it
pays for one of them (`events.parallel`). The key is fixed with the grant, after the
study: nobody can choose a study to have somebody held out. It need not be secret.
Public: the share. Secret: who is held out, and how many.
Review, crash order: in memory only; the same key gives the same split after a crash.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guilder_shared.study import Study
from guilder_shared.tasks import Examples


@dataclasses.dataclass(frozen=True)
class Parts:
    """A site's rows, each in one of the two.

    Attributes:
        training: What steps may draw from.
        measured: What charged metrics are counted on; None where the study has none.
    """

    training: Examples
    measured: Examples | None = None

    def each(self, change: Callable[[Examples], Examples]) -> "Parts":
        """The same parts with every row changed by itself."""
        measured = None if self.measured is None else change(self.measured)
        return Parts(change(self.training), measured)


def split(examples: Examples, study: Study, secret: str) -> Parts:
    """Hold units out, as the study says.

    Args:
        examples: Encoded rows, before features are computed.
        study: Names the share; without charged metrics nothing is held out.
        secret: The key; the same for all turns of a grant.
    """
    if study.evaluation.on != "charged":
        return Parts(examples)
    threshold = int(Fraction(study.evaluation.rows) * 2**64)
    key = hashlib.sha256(b"guilder held out 1\n" + secret.encode()).digest()
    held = _words(examples, key) < np.uint64(threshold)
    return Parts(_some(examples, ~held), _some(examples, held))


def training_size(public_size: int, study: Study) -> int:
    """The public number of units to train on: the share kept of the public size."""
    if study.evaluation.on != "charged":
        return public_size
    return max(1, round(public_size * (1 - study.evaluation.rows)))


def _words(examples: Examples, key: bytes) -> NDArray[np.uint64]:
    """A word of each row, uniform over keys: a function of its unit and the key."""
    if examples.units is not None:
        names, places = np.unique(examples.units, return_inverse=True)
        words = [_word(key, name.astype("<i8").tobytes()) for name in names]
        return np.array(words, dtype=np.uint64)[places]
    rows = zip(_little(examples.inputs), _little(examples.targets), strict=True)
    words = [_word(key, inputs.tobytes(), target.tobytes()) for inputs, target in rows]
    return np.array(words, dtype=np.uint64)


def _word(key: bytes, *cells: bytes) -> int:
    digest = hashlib.blake2b(key=key, digest_size=8)
    for cell in cells:
        digest.update(cell)
    return int.from_bytes(digest.digest(), "little")


def _little(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _some(examples: Examples, kept: NDArray[np.bool_]) -> Examples:
    units = examples.units
    return Examples(
        examples.inputs[kept],
        examples.targets[kept],
        None if units is None else units[kept],
    )
