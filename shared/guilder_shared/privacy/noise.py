"""Gaussian noise for sums of clipped gradients, and what its arithmetic leaves over.

The noise comes from a cryptographic keystream, is added in float64 and rounded once
to a public grid. This module knows no gradient, no torch and no budget.

Review, mathematics. Ideal: round(S + std x Z) to the grid is a function of S + std x Z
alone, so the plain Gaussian mechanism's guarantee holds for it. Real: Z is a float.
The code below makes round(S + std x Z'), where Z' comes from `normals`, with hardly an
error of the addition (of a large sum, integer and remainder apart). `residue` bounds
how far the law of the real output is from the ideal one:
  1. Coupled as in `normals`, |Z' - Z| < 2**-45 up to radius 10.2, 2**-40 grids. A sum
     below 2**13 grids is added as it is, which moves it by at most 2**-41 grids more;
     of a larger one the remainder, below 512 grids with the noise: 2**-45 grids.
  2. A cell is one grid wide, and both its ends move. With a grid of at least std/32 its
     probability is therefore wrong by a factor within 1 +- 2**-35 (twice 2**-39, times
     at most 2 for the density's change along a cell at radius 10.2), near the origin
     (where u -> 1 is coarse) included; for each sum, whichever way it is added.
     Between radius 10.2 and 12.0 (mass 2**-76) the radius is coarser: 1 +- 2**-20.
     Beyond 12.0 (2**-104 a pair) the law counts as wrong altogether.
  3. The errors have mean 0 under the law they belong to, so over all numbers of all
     steps their logarithms sum to at most sqrt(2 V L) + 2/3 x 2**-20 x L except with
     probability exp(-L) (Freedman's inequality, which allows adaptive steps).
Public: std, grid, number of numbers. Assumed: AES-256-CTR is a random stream.
Review, crash order: nothing is sent or written here.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from guilder_shared.privacy.normals import BLOCK, Floats, Normals

Some = np.ndarray[tuple[int], np.dtype[np.floating]]

MAX_NUMBERS = 1 << 27  # trained parameters in one release; `residue` assumes it

_ROUNDED = 1 << 15  # numbers to round at once: they stay in the cache
MANY = 1 << 19  # worth several threads, which wait less for Python's lock with more

_NEAR = 2.0**13 - 2.0**9  # grids, noise not counted

_local = threading.local()

_GRID_BITS = 4  # grid = 2**floor(log2(std)) / 16, hence between std/32 and std/16
_CELL_ERROR = 2.0**-35  # point 2
_FAR_CELL_ERROR = 2.0**-20
_FAR_LOG2_MASS = -104.0
_LARGEST_EPSILON = 20.0


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
        Shape (numbers,), float64, multiples of `grid`: round(total + noise); what the
        addition's rounding adds is in `residue`, however large `total` is (up to 2**52
        grids).

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
    drawn = draw(len(total), std, key, grid, threads=threads)

    def work(first: int, last: int) -> None:
        for part in rounded_at_once(len(total), first, last):
            round_sum(total[part], drawn[part], grid, total[part])

    in_parts(work, len(total), threads)


def draw(
    num: int,
    std: float,
    key: bytes,
    grid: float,
    out: Floats | None = None,
    *,
    threads: int = 1,
) -> Floats:
    """The noise that `add_noise` with these arguments adds, before it is rounded.

    Args:
        num: How many numbers.
        std: As for `add_noise`.
        key: As for `add_noise`.
        grid: As for `add_noise`.
        out: Where to put them: `num` numbers, one more if that is odd.
        threads: As for `add_noise_in_place`.

    Returns:
        Shape (num,), float64, in units of the grid: for `round_sum`, and only once.
    """
    even = (num + 1) // 2 * 2
    if out is None:
        out = np.empty(even, dtype=np.float64)
    room, scale = out, in_grids(std, grid)

    def work(first: int, last: int) -> None:
        normals = Normals(key, first=first)
        for start in range(first, last, BLOCK):
            normals.fill(room[start : min(start + BLOCK, last)], scale)

    in_parts(work, even, threads)
    return out[:num]


def draw_several(
    num: int, std: float, keys: Sequence[bytes], grid: float, out: Floats
) -> None:
    """As `draw` for each of some keys, to the bit, in few calls.

    Each call gives Python's lock away and asks for it again, which costs a thread
    beside this one more than the numbers do.

    Args:
        num: How many numbers for each key.
        std: As for `add_noise`.
        keys: As for `add_noise`, each used once.
        grid: As for `add_noise`.
        out: Contiguous; for each key `num` numbers, one more if that is odd.
    """
    if num:
        Normals(*keys).fill(out, in_grids(std, grid))


def in_grids(std: float, grid: float) -> float:
    """Divide std by the grid, exactly.

    Raises:
        ValueError: The grid is not a power of two.
    """
    if math.frexp(grid)[0] != 0.5:  # only then are the divisions exact
        raise ValueError(f"grid must be a power of two, not {grid!r}")
    return std / grid


def in_parts(work: Callable[[int, int], None], num: int, threads: int) -> None:
    """Call `work(first, last)` for parts of 0 .. num, each from a whole block on."""
    blocks = -(-num // BLOCK)
    threads = max(1, min(threads, blocks))
    ends = [blocks * i // threads * BLOCK for i in range(threads)] + [num]
    if threads == 1:
        work(0, num)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work, *ends[i : i + 2]) for i in range(1, threads)]
        work(ends[0], ends[1])
        for other in others:
            other.result()


def rounded_at_once(num: int, first: int, last: int) -> Iterator[slice]:
    """Parts of first .. last for `round_sum`, the same for every number of threads.

    Args:
        num: How many numbers there are in all.
        first: Where a part from `in_parts` begins.
        last: Where it ends.
    """
    most = BLOCK if num >= MANY else _ROUNDED
    for start in range(first, last, most):
        yield slice(start, min(start + most, last))


def round_sum(total: Some, noise: Floats, grid: float, out: Some) -> None:
    """round(total + grid x noise) to the grid, into `out`, which may be `total`.

    Args:
        total: Shape (numbers,), finite, float32 or float64.
        noise: From `draw`, in units of the grid.
        grid: A power of two.
        out: Shape (numbers,); rounded once more to its dtype if that is not float64.
    """
    near = len(total) and max(total.max(), -total.min()) < _NEAR * grid
    rest, whole = _rooms(len(total))
    np.copyto(rest, total)
    rest *= 1 / grid  # exact, and so is all below but the addition of the noise
    if not near:
        np.rint(rest, out=whole)
        rest -= whole  # at most half a grid
    rest += noise
    np.rint(rest, out=rest)
    if not near:
        rest += whole
    rest *= grid
    np.copyto(out, rest, casting="same_kind")
    out += 0.0  # of -0.0 the sign is lost


def _rooms(num: int) -> tuple[Floats, Floats]:
    """Two vectors of this thread's own, overwritten by the next call."""
    rooms: tuple[Floats, Floats] | None = getattr(_local, "rooms", None)
    if rooms is None or len(rooms[0]) < num:
        one, other = np.empty((2, max(num, _ROUNDED)))
        rooms = _local.rooms = (one, other)
    return rooms[0][:num], rooms[1][:num]


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
