"""Made-up arrivals at four emergency departments, and how urgent each of them was.

They follow from their seed alone, on every machine alike: whole numbers and nothing
that a library may round otherwise. Nobody is in them. This module deals nothing to
sites.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

HOSPITALS = ("hospital-a", "hospital-b", "hospital-c", "hospital-d")
LEVELS = ("now", "soon", "today", "no-hurry")
ARRIVALS = ("walked", "referred", "ambulance")
NUM_ARRIVALS = 12_000

Numbers = NDArray[np.int64]


def arrivals(seed: int) -> "pa.Table":
    """12,000 arrivals: what was measured at the door, and the level of urgency.

    Urgency adds up how far each sign of life is from usual, how somebody came, and
    what the nurse sees and no column holds. Departments differ in how many come by
    ambulance and in what they call urgent.

    Args:
        seed: The same seed gives the same rows.

    Returns:
        Columns `age`, `heart_rate`, `systolic`, `breaths`, `oxygen`, `temperature`
        (tenths of a degree), `pain`, `arrival`, `level` (one of four) and `hospital`.
    """
    import pyarrow as pa

    rng = np.random.Generator(np.random.PCG64(seed))
    hospital = rng.integers(0, len(HOSPITALS), NUM_ARRIVALS)
    ill = rng.integers(0, 100, NUM_ARRIVALS) ** 2 // 100  # few are very ill
    came = (ill + 8 * hospital + rng.integers(0, 60, NUM_ARRIVALS)) // 56
    signs = {
        "age": rng.integers(1, 96, NUM_ARRIVALS),
        "heart_rate": 72 + ill // 2 + _about(rng, 12),
        "systolic": 126 - ill // 3 + _about(rng, 16),
        "breaths": 15 + ill // 8 + _about(rng, 3),
        "oxygen": np.minimum(100, 98 - ill // 9 + _about(rng, 2)),
        "temperature": 368 + ill // 8 + _about(rng, 7),
        "pain": np.clip(ill // 12 + rng.integers(0, 6, NUM_ARRIVALS), 0, 10),
    }
    urgency = ill + signs["age"] // 8 + 6 * np.minimum(came, 2) + _about(rng, 6)
    level = 3 - np.searchsorted([18, 40, 66], urgency - 2 * hospital)
    return pa.table(
        signs
        | {
            "arrival": [ARRIVALS[min(each, 2)] for each in came.tolist()],
            "level": [LEVELS[each] for each in level.tolist()],
            "hospital": [HOSPITALS[each] for each in hospital.tolist()],
        }
    )


def _about(rng: np.random.Generator, spread: int) -> Numbers:
    """Whole numbers around 0, most of them within `spread`."""
    drawn = rng.integers(-spread, spread + 1, (3, NUM_ARRIVALS)).sum(axis=0)
    return np.asarray(drawn // 2, dtype=np.int64)
