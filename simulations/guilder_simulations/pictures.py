"""Made-up images: of a card's payments, slices with a lesion, scans of patients.

All follow from their seed alone, on every machine alike: whole numbers of NumPy's
generator and correctly rounded arithmetic, no function of a library that may round
otherwise. Nobody is in them. This module deals nothing to sites.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

SIDE = 16
BANKS = ("bank-a", "bank-b", "bank-c", "bank-d")
NUM_CARDS = 6_000
ANOMALIES = 0.5

SLICE_SIDE = 32
NUM_SLICES = 800

HOSPITALS = ("hospital-a", "hospital-b", "hospital-c", "hospital-d")
NUM_PATIENTS = 600
MOST_SCANS = 12  # of one patient

Bytes = NDArray[np.uint8]


def transactions(seed: int) -> "pa.Table":
    """6,000 cards of four banks, each a picture of its payments, 16 x 16 grey.

    Across are sixteen spans of time, down sixteen sizes of payments, bright where there
    were many. An honest card has habits: a few sizes, again and again. Half of them are
    `anomalous`: for a short span it also pays in every size, as a stolen card does.

    Args:
        seed: The same seed gives the same bytes.

    Returns:
        Columns `image` (256 bytes), `anomalous` (0 or 1) and `bank`.
    """
    import pyarrow as pa

    rng = np.random.Generator(np.random.PCG64(seed))
    images = rng.integers(0, 40, (NUM_CARDS, SIDE, SIDE))
    for _ in range(3):  # habits: a size that comes back at every second span or so
        size = rng.integers(0, SIDE, NUM_CARDS)
        often = rng.integers(0, 2, (NUM_CARDS, SIDE)) * rng.integers(60, 200)
        images[np.arange(NUM_CARDS), size] += often
    bank = rng.integers(0, len(BANKS), NUM_CARDS)
    images += 6 * bank[:, None, None]  # banks record a little differently
    anomalous = rng.random(NUM_CARDS) < ANOMALIES
    first = rng.integers(0, SIDE - 2, NUM_CARDS)
    burst = rng.integers(0, 240, (NUM_CARDS, SIDE, 2)) * anomalous[:, None, None]
    for span in range(2):
        images[np.arange(NUM_CARDS), :, first + span] += burst[:, :, span]
    return pa.table(
        {
            "image": _cells(images),
            "anomalous": anomalous.astype(np.int8),
            "bank": [BANKS[each] for each in bank],
        }
    )


def lesions(seed: int) -> "pa.Table":
    """800 slices through a made-up body, 32 x 32 grey, with the mask of a lesion.

    A bright body with darker organs; the lesion is a small disc, a little brighter or
    darker than what it lies in by the scanner. One slice in five has none.

    Args:
        seed: The same seed gives the same bytes.

    Returns:
        Columns `image` and `lesion` (1,024 bytes each; 0 or 1) and `scanner`.
    """
    import pyarrow as pa

    rng = np.random.Generator(np.random.PCG64(seed))
    down, across = np.mgrid[:SLICE_SIDE, :SLICE_SIDE]
    scanner = rng.integers(0, 4, NUM_SLICES)
    images = rng.integers(0, 30, (NUM_SLICES, SLICE_SIDE, SLICE_SIDE))
    masks = np.zeros(images.shape, np.uint8)
    for place in range(NUM_SLICES):
        image = images[place]
        centre = rng.integers(14, 19, 2)
        image[_ellipse(down, across, centre, (13, 10))] += 90
        for _ in range(3):
            organ = centre + rng.integers(-6, 7, 2)
            image[_ellipse(down, across, organ, tuple(rng.integers(2, 5, 2)))] -= 30
        if rng.random() < 0.8:
            spot, radius = centre + rng.integers(-5, 6, 2), int(rng.integers(2, 5))
            inside = _ellipse(down, across, spot, (radius, radius))
            image[inside] += 70 if scanner[place] % 2 else 100
            masks[place][inside] = 1
    return pa.table(
        {
            "image": _cells(images),
            "lesion": _cells(masks),
            "scanner": [f"scanner-{each}" for each in scanner],
        }
    )


def scans(seed: int) -> "pa.Table":
    """Scans of 600 patients at four hospitals, 1 to 12 of each, 16 x 16 grey.

    A patient's scans are alike: the same organ at the same place. In about half of all
    scans there is a finding, a bright spot beside it.

    Args:
        seed: The same seed gives the same bytes.

    Returns:
        Columns `image` (256 bytes), `finding` (no or yes), `patient` and `hospital`.
    """
    import pyarrow as pa

    rng = np.random.Generator(np.random.PCG64(seed))
    down, across = np.mgrid[:SIDE, :SIDE]
    each = 1 + rng.integers(0, MOST_SCANS, NUM_PATIENTS)
    patient = np.repeat(np.arange(NUM_PATIENTS), each)
    organ = rng.integers(5, 11, (NUM_PATIENTS, 2))[patient]
    hospital = rng.integers(0, len(HOSPITALS), NUM_PATIENTS)[patient]
    images = rng.integers(0, 40, (len(patient), SIDE, SIDE))
    images += 8 * hospital[:, None, None]  # scanners differ a little
    there = rng.integers(0, 2, len(patient))
    spot = rng.integers(2, SIDE - 2, (len(patient), 2))
    for place, image in enumerate(images):
        image[_ellipse(down, across, organ[place], (4, 3))] += 60
        if there[place]:
            image[_ellipse(down, across, spot[place], (2, 2))] += 110
    return pa.table(
        {
            "image": _cells(images),
            "finding": [("no", "yes")[n] for n in there.tolist()],
            "patient": [f"patient-{n:04d}" for n in patient.tolist()],
            "hospital": [HOSPITALS[n] for n in hospital.tolist()],
        }
    )


def _ellipse(
    down: NDArray[np.int64],
    across: NDArray[np.int64],
    centre: NDArray[np.int64],
    radii: tuple[int, int],
) -> NDArray[np.bool_]:
    """Whole numbers only: the same pixels everywhere."""
    y, x = (down - centre[0]) * radii[1], (across - centre[1]) * radii[0]
    inside: NDArray[np.bool_] = y * y + x * x <= (radii[0] * radii[1]) ** 2
    return inside


def _cells(images: NDArray[np.integer]) -> "pa.Array":
    import pyarrow as pa

    data = np.ascontiguousarray(np.clip(images, 0, 255).astype(np.uint8))
    kind = pa.binary(int(np.prod(images.shape[1:])))
    buffers = [None, pa.py_buffer(data)]
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(images), buffers)
