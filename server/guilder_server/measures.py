"""The sum of what sites measured or were asked: noised counts, added and read off.

Each site's vector is private by itself, so the sum protects nobody further. Adding is
in whole numbers, so the same replies give the same sum in any order. This module knows
no wire and no noise.

Range: a number is below 2^33 in size, 2^53 in units of 2^-20; 512 sites stay below
2^62.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from guilder_shared.compression import Vector
from guilder_shared.errors import IntegrityError
from guilder_shared.study import Study
from guilder_shared.training import asked, charged

SCALE: Final = 2**20
LARGEST: Final = 2.0**33  # rows of a site, and more
Total = npt.NDArray[np.int64]


def size(study: Study) -> int:
    """How many numbers every site's vector has."""
    room = charged if study.statistics is None else asked
    return sum(room.widths(study).values())


def empty(study: Study) -> Total:
    """A sum of nothing."""
    return np.zeros(size(study), np.int64)


def check(found: Vector) -> None:
    """Check that a vector may be added; its length is checked already.

    Raises:
        IntegrityError: GLD-I045 a number that no count can be.
    """
    if not bool((np.abs(found) < LARGEST).all()):  # also catches NaN
        raise IntegrityError(
            "GLD-I045",
            f"it measured a number that is not finite or reaches {LARGEST:.0f}. It was "
            "not added.",
            fix="leave the site out, and ask its engineer",
        )


def add(total: Total, found: Vector) -> Total:
    """Add one site's vector, checked before."""
    units = np.rint(found.astype(np.float64) * SCALE)
    return total + units.astype(np.int64)


def read_off(study: Study, total: Total) -> dict[str, float]:
    """What the sum says, by name."""
    if study.statistics is not None:
        return asked.answers(study, total / SCALE)
    return charged.metrics(study, total / SCALE)
