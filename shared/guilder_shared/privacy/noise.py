"""Gaussian noise for sums of clipped gradients, and what its arithmetic leaves over.

The noise comes from a cryptographic keystream, is added in float64 and rounded once
to a public grid. This module knows no gradient, no torch and no budget.

Review, mathematics. Ideal: round(S + std x Z) to the grid is a function of S + std x Z
alone, so the plain Gaussian mechanism's guarantee holds for it. Real: Z is a float.
The code below makes round(S + std x Z') exactly (integer plus rounded remainder),
where Z' comes from 128 random bits for the radius and 53 for the angle. `residue`
bounds how far the law of the real output is from the ideal one:
  1. Couple each word with a continuous uniform inside its cell. Up to radius 10.2
     then |Z' - Z| < 2**-45: angle quantised 2 pi x 2**-54, cos and sin off by at most
     2**-51, 4 ulp granted to log, 1 ulp to every product and to the sum.
  2. With a grid of at least std/32 a cell's probability is therefore wrong by a
     factor within 1 +- 2**-35, near the origin (where u -> 1 is coarse) included.
     Between radius 10.2 and 12.0 (mass 2**-76) the radius is coarser: 1 +- 2**-20.
     Beyond 12.0 (2**-104 a pair) the law counts as wrong altogether.
  3. The errors have mean 0 under the law they belong to, so over all numbers of all
     steps their logarithms sum to at most sqrt(2 V L) + 2/3 x 2**-20 x L except with
     probability exp(-L) (Freedman's inequality, which allows adaptive steps).
Public: std, grid, number of numbers. Assumed: AES-256-CTR is a random stream.
Review, crash order: nothing is sent or written here.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from guilder_shared.privacy.sampling import Keystream, Words

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

MAX_NUMBERS = 1 << 27  # trained parameters in one release; `residue` assumes it

_BLOCK_PAIRS = 1 << 13
_GRID_BITS = 4  # grid = 2**floor(log2(std)) / 16, hence between std/32 and std/16
_CELL_ERROR = 2.0**-35  # point 2
_FAR_CELL_ERROR = 2.0**-20
_FAR_LOG2_MASS = -104.0
_LARGEST_EPSILON = 20.0


def gaussian(num: int, key: bytes) -> Floats:
    """Standard normal numbers, a deterministic function of `key`.

    Args:
        num: How many; 0 is allowed.
        key: 32 bytes, used for this call only.

    Returns:
        Shape (num,), float64. The radius comes from 128 random bits, so the largest
        value is sqrt(2 x 129 x ln 2) = 13.37; the mass cut off is 2**-129 a pair.

    Source: Box and Muller 1958; AES-CTR keystream as in `sampling.Keystream`.
    """
    num_pairs = (num + 1) // 2
    out = np.empty(2 * num_pairs, dtype=np.float64)
    for start in range(0, num_pairs, _BLOCK_PAIRS):
        pairs = min(_BLOCK_PAIRS, num_pairs - start)
        _fill(out[2 * start : 2 * (start + pairs)], key, start)
    return out[:num]


def _fill(out: Floats, key: bytes, first_pair: int) -> None:
    """Fill `out` with the key's numbers from that pair on; both counts are even."""
    stream = Keystream(key, 3 * first_pair)
    _box_muller(stream.words(3 * (len(out) // 2)), out)


def _box_muller(words: Words, out: Floats) -> None:
    """Fill `out` from three words a pair: two for the radius, one for the angle."""
    top, low, turn = words.reshape(-1, 3).T
    # u in [2**-129, 1]: the second word gives precision where the first is small.
    uniform = (low.astype(np.float64) + 0.5) * 2.0**-128
    uniform += top.astype(np.float64) * 2.0**-64
    radius = np.log(uniform, out=uniform)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    cos, sin = _directions(turn)
    np.multiply(radius, cos, out=out[0::2])
    np.multiply(radius, sin, out=out[1::2])


def _directions(turn: Words) -> tuple[Floats, Floats]:
    """Cosine and sine of the turn that a word's top 53 bits stand for.

    The top 10 bits choose a direction from a table, the next 43 turn it by less than
    r = pi/1024, where r**6 / 720 < 2**-59 is left out. Error below 2**-51.
    """
    place = (turn >> np.uint64(54)).astype(np.intp)
    angle = ((turn >> np.uint64(11)) & np.uint64(2**43 - 1)).astype(np.float64)
    angle += 0.5 - 2.0**42  # exact
    angle *= 2.0 * math.pi * 2.0**-53
    square = angle * angle
    cos = square * (1 / 24)
    cos -= 0.5
    cos *= square
    cos += 1.0
    sin = square * (1 / 120)
    sin -= 1 / 6
    sin *= square
    sin += 1.0
    sin *= angle
    along, across = _COS[place], _SIN[place]
    np.multiply(along, sin, out=angle)
    np.multiply(across, sin, out=sin)
    along *= cos
    along -= sin
    across *= cos
    across += angle
    return along, across


def _table() -> tuple[Floats, Floats]:
    """Cosine and sine at the middles of 1024 parts of a turn, from one eighth of it."""
    eighth = (np.arange(128) + 0.5) * (math.pi / 512)
    low, high = np.sin(eighth), np.cos(eighth)
    falling = np.concatenate([high, low[::-1]])  # the cosine of a quarter
    rising = falling[::-1]
    cos = np.concatenate([falling, -rising, -falling, rising])
    sin = np.concatenate([rising, falling, -rising, -falling])
    return cos, sin


_COS, _SIN = _table()


def grid_for(std: float) -> float:
    """The public grid for noise of this size: a power of two in (std/32, std/16].

    Its rounding adds at most std**2 / 3072 to the variance.
    """
    if not 0 < std < math.inf:
        raise ValueError(f"std must be positive and finite, not {std!r}")
    _, exponent = math.frexp(std)  # std = m x 2**exponent with m in [0.5, 1)
    return math.ldexp(1.0, exponent - 1 - _GRID_BITS)


def add_noise(total: Floats, std: float, key: bytes, grid: float) -> Floats:
    """Release a sum: add Gaussian noise, round once to the grid.

    Args:
        total: The exact sum, shape (numbers,), float64, finite.
        std: Standard deviation of the noise, in the sum's own units.
        key: 32 bytes, used for this call only.
        grid: `grid_for(std)`; a power of two.

    Returns:
        Shape (numbers,), float64, multiples of `grid`: round(total + noise), with no
        rounding error in the sum however large `total` is (up to 2**52 grids).

    Guarantee: the Gaussian mechanism with this std, up to `residue`.
    """
    released = np.array(total, dtype=np.float64)
    add_noise_in_place(released, std, key, grid)
    return released


def add_noise_in_place(
    total: Floats, std: float, key: bytes, grid: float, *, threads: int = 1
) -> None:
    """As `add_noise`, to the bit, in the sum's own memory and on several threads.

    Args:
        total: Contiguous and writable; afterwards it is the release.
        std: As for `add_noise`.
        key: As for `add_noise`.
        grid: As for `add_noise`.
        threads: How many blocks are made at once; the bytes do not depend on it.
    """
    if math.frexp(grid)[0] != 0.5:  # only then are the divisions exact
        raise ValueError(f"grid must be a power of two, not {grid!r}")
    size = 2 * _BLOCK_PAIRS

    def block(start: int) -> None:
        part = total[start : start + size]
        noise = np.empty((len(part) + 1) // 2 * 2, dtype=np.float64)
        _fill(noise, key, start // 2)
        _round_sum(part, noise[: len(part)], std, grid)

    starts = range(0, len(total), size)
    if threads == 1 or len(starts) == 1:
        for start in starts:
            block(start)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(block, starts):
            pass


def _round_sum(total: Floats, noise: Floats, std: float, grid: float) -> None:
    """round(total + std x noise) to the grid, into `total`; `noise` is overwritten."""
    whole = np.rint(total / grid)
    noise *= std
    noise += total - whole * grid  # exact, at most half a grid
    noise /= grid
    np.rint(noise, out=noise)
    noise += whole
    np.multiply(noise, grid, out=total)


@dataclass(frozen=True)
class Residue:
    """What the arithmetic adds to the promise of the ideal mechanism.

    Attributes:
        epsilon: Added to the ideal mechanism's epsilon.
        delta: Taken from delta before the ideal mechanism's epsilon is computed.
    """

    epsilon: float
    delta: float


def residue(num_steps: int, *, epsilon: float, delta: float) -> Residue:
    """Bound the distance between the noise as computed and the noise as accounted.

    If the ideal mechanism is (epsilon, delta - r.delta) private, the real one is
    (epsilon + r.epsilon, delta) private: compare real with ideal on one side, use
    the ideal guarantee, compare ideal with real on the other.

    Args:
        num_steps: Noised sums released, each of at most MAX_NUMBERS numbers.
        epsilon: Of the ideal mechanism; enters through exp(epsilon) times the
            second comparison's failure. Counted up to 20: beyond that no number
            here means much, and reports say so.
        delta: The delta that is promised.

    Returns:
        About (1e-4, delta/3000) for 550 steps, epsilon 3, delta 1e-6.
    """
    num_pairs = num_steps * (MAX_NUMBERS // 2)
    epsilon = min(epsilon, _LARGEST_EPSILON)
    # Each comparison may fail with exp(-log_share); the second counts e**epsilon.
    log_share = math.log(2.0**13 / delta) + epsilon + 1.0
    variance = num_pairs * _CELL_ERROR**2
    one_side = (
        math.sqrt(2 * variance * log_share)
        + 2 / 3 * _FAR_CELL_ERROR * log_share
        + variance
    )
    far = num_pairs * 2.0**_FAR_LOG2_MASS * (1 + math.exp(epsilon + one_side))
    failed = delta * 2.0**-12
    return Residue(
        epsilon=2 * one_side,
        delta=failed + far + delta * math.expm1(one_side),
    )
