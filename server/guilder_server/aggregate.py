"""The sum of a round: replies folded one by one, in integers, and forgotten.

A mean of updates weighted by public sizes. Folding is int64 fixed point, so the
same replies give the same bytes in any order. This module knows no wire, no privacy.

Range: weights sum to at most 512 * 2^14 = 2^23; a folded value is at most
2^10 * 2^30 * 2^23 = 2^63, and the check is strict, so nothing overflows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from guilder_shared.errors import IntegrityError, StudyError
from guilder_shared.messages import Weights

SCALE: Final = 2**30  # fixed point: one unit is 2^-30, about 1e-9
LARGEST_WEIGHT: Final = 2**14
LARGEST_UPDATE: Final = 2.0**10  # per coordinate; a site beyond is blamed
MOST_SITES: Final = 512
BLOCK: Final = 2**16  # coordinates at a time: what lies beside a model stays small

Numbers = npt.NDArray[np.float64]


@dataclass
class Total:
    """The running sum of one round."""

    sums: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    weight: int = 0

    def centre(self, name: str, block: slice) -> Numbers:
        """The mean of the updates of one parameter, flattened, in one block."""
        assert self.weight > 0, "a round without replies is never stepped"
        return self.sums[name].reshape(-1)[block] / (float(SCALE) * self.weight)


def weigh(public_sizes: Mapping[str, int]) -> dict[str, int]:
    """Integer weights in proportion to public sizes, the largest 2^14.

    Raises:
        StudyError: More than 512 sites; the integer sum could overflow.
    """
    if len(public_sizes) > MOST_SITES:
        raise StudyError(
            "GLD-C080", f"{len(public_sizes)} sites, at most {MOST_SITES} can be summed"
        )
    largest = max(public_sizes.values(), default=1)
    return {
        site: max(1, round(LARGEST_WEIGHT * size / largest))
        for site, size in public_sizes.items()
    }


def empty(shapes: Mapping[str, tuple[int, ...]]) -> Total:
    """A sum of nothing in these shapes; it takes memory when something is folded."""
    return Total({name: np.zeros(shape, np.int64) for name, shape in shapes.items()})


def blocks(size: int) -> Iterator[slice]:
    """Slices of `BLOCK` that cover a flattened array of this size."""
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))


def check(update: Weights) -> None:
    """Check that an update may be folded; its names and shapes are checked already.

    Raises:
        IntegrityError: GLD-I045 a coordinate is not finite or is 2^10 or more.
    """
    for name, values in update.items():
        flat = values.reshape(-1)
        for block in blocks(flat.size):
            if not bool((np.abs(flat[block]) < LARGEST_UPDATE).all()):  # NaN too
                raise IntegrityError(
                    "GLD-I045",
                    f"it sent an update of {name!r} that is not finite or reaches "
                    f"{LARGEST_UPDATE:.0f}. It was not added.",
                    fix="lower [training] learning_rate, or leave the site out",
                )


def fold(total: Total, update: Weights, *, weight: int, scale: float = 1.0) -> Total:
    """Add one site's update, checked before; it may be dropped afterwards.

    Args:
        total: The sum so far; it is changed.
        update: As `check` allows it.
        weight: From `weigh`.
        scale: In (0, 1]; the update is made so much shorter.
    """
    for name, values in update.items():
        flat, sums = values.reshape(-1), total.sums[name].reshape(-1)
        for block in blocks(flat.size):
            units = np.rint(flat[block].astype(np.float64) * (scale * SCALE))
            sums[block] += units.astype(np.int64) * weight
    total.weight += weight
    return total
