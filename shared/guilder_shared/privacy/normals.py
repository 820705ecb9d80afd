"""Standard normal numbers from a cryptographic keystream, in float64.

Box and Muller's method, a block at a time so that all passes stay in the cache. This
module knows no sum, no grid and no budget: see `noise` for what is released.

Review, mathematics. A pair of numbers is r (cos t, sin t). The radius comes from a word
of 64 bits, u = word / 2**64; where that is below 2**-20 (one pair in a million) 64 bits
more are read, so that r reaches 13.32 and the mass cut off is 2**-128 a pair. The angle
has 64 bits. Couple the words with continuous uniforms inside their cells. Up to radius
10.2 then |Z' - Z| < 2**-45 in units of one std:
  - cell of u: at most 2**-64 / u relative, at most 2**-44 where no more bits are read
    (r >= 5.26) and 2**-53 otherwise; r moves by that over r: below 2**-46.3;
  - 4 ulp granted to log, 1/2 ulp to each constant, product and root: r is right to
    2**-50.9 relative, at most 2**-47.5;
  - cos and sin right to 2**-51: a table of 4096 directions, right to an ulp, turned by
    at most pi/4096, where a**5 / 120 < 2**-58 and a**6 / 720 < 2**-71 are left out; at
    most 2**-47.6 at radius 10.2.
Near r = 0 the radius is coarse by 2**-53 / r. Between radius 10.2 and 12.0 the second
word's cell is at least 2**-25 of it, and r right to 2**-28. Public: how many numbers.
Assumed: AES-256-CTR is a random stream. Not hidden: how long it takes.
Review, crash order: nothing is sent or written here.
"""

import math
import threading
from collections.abc import Sequence

import numpy as np

from guilder_shared.privacy.sampling import Keystream, Words

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

# Numbers made by one call of each pass, in 3 MiB. Between two passes another thread's
# Python waits for this one's: few long ones disturb it least.
BLOCK = 1 << 17

_TURNS_FROM, _FAR_FROM = 1 << 65, 1 << 66  # words: far beyond any radius' word
_FAR = 2.0**-20  # below, 64 more bits are read
_PLACE_BITS = 12
_FRACTION = np.uint64(2**52 - 1)
_ONE = np.uint64(0x3FF << 52)  # the bits of 1.0

_local = threading.local()


class Normals:
    """The normal numbers of one key, or of several side by side, in order.

    Args:
        keys: 32 bytes each, used for this purpose only. What a key gives does not
            depend on the others.
        first: Where to begin, a multiple of `BLOCK`.
    """

    def __init__(self, *keys: bytes, first: int = 0) -> None:
        if first % BLOCK:
            raise ValueError(f"first must be a multiple of {BLOCK}, not {first}")
        self._keys, self._pair = keys, first // 2
        self._radii = [Keystream(key, self._pair) for key in keys]
        self._turns = [Keystream(key, _TURNS_FROM + self._pair) for key in keys]

    def fill(self, out: Floats, scale: float = 1.0) -> None:
        """Write the next numbers of each key, times `scale`, one key after the other.

        Args:
            out: Contiguous, equally many for each key: an even number. Of `BLOCK` at
                a time the passes stay in the cache.
            scale: Standard deviation of what is written, positive.
        """
        num = len(out) // 2
        scratch = _scratch(num)
        radius, sin = scratch.radius[:num], scratch.sin[:num]
        words = scratch.words[:num]
        _read(self._radii, words)
        np.multiply(words, 2.0**-64, out=radius)  # rounded once: the factor is exact
        if radius.size and radius.min() < _FAR:
            self._read_on(radius)
        _to_radius(radius, scale)
        _read(self._turns, words)
        small = out.view(np.complex128)
        directions = scratch.directions[:num]
        angle = _split(words, scratch.places[:num], directions)
        # the places are used up: their memory is the cosine's
        cos = scratch.places[:num].view(np.float64)
        _turned(angle, radius, cos, sin, small)
        small *= directions
        self._pair += num // len(self._keys)

    def _read_on(self, radius: Floats) -> None:
        """64 more bits for the few whose first 64 are small."""
        each = len(radius) // len(self._keys)
        for i in np.flatnonzero(radius < _FAR).tolist():
            key, pair = self._keys[i // each], self._pair + i % each
            stream = Keystream(key, _FAR_FROM + 2 * pair)
            low = int(stream.words(2)[0])
            radius[i] += (low + 0.5) * 2.0**-128


def gaussian(num: int, key: bytes) -> Floats:
    """Standard normal numbers, a deterministic function of `key`.

    Args:
        num: How many; 0 is allowed.
        key: 32 bytes, used for this call only.

    Returns:
        Shape (num,), float64; at most 13.32 in size.

    Source: Box and Muller 1958; AES-CTR keystream as in `sampling.Keystream`.
    """
    out = np.empty((num + 1) // 2 * 2, dtype=np.float64)
    normals = Normals(key)
    for start in range(0, len(out), BLOCK):
        normals.fill(out[start : start + BLOCK])
    return out[:num]


class _Scratch:
    """One thread's memory: overwritten by every block, never handed out."""

    def __init__(self, pairs: int) -> None:
        self.words, self.places = np.empty((2, pairs), dtype=np.uint64)
        self.radius, self.sin = np.empty((2, pairs))
        self.directions = np.empty(pairs, dtype=np.complex128)


def _scratch(pairs: int) -> _Scratch:
    found: _Scratch | None = getattr(_local, "scratch", None)
    if found is None or len(found.words) < pairs:
        found = _local.scratch = _Scratch(pairs)
    return found


def _read(streams: Sequence[Keystream], words: Words) -> None:
    """The next words of each stream, equally many."""
    each = len(words) // len(streams)
    for place, stream in enumerate(streams):
        stream.fill(words[place * each : (place + 1) * each])


def _to_radius(uniform: Floats, scale: float) -> None:
    """U to scale x sqrt(-2 log u), in place."""
    np.log(uniform, out=uniform)
    uniform *= -2.0 * scale * scale
    np.sqrt(uniform, out=uniform)


def _split(
    words: Words,
    places: Words,
    directions: "np.ndarray[tuple[int], np.dtype[np.complex128]]",
) -> Floats:
    """The direction that a word's top 12 bits choose, and the angle from it.

    The other 52 bits become the fraction of a number in [1, 2), which is exact, hence
    the angle is a multiple of 2 pi x 2**-64 below pi/4096 in size. `words` is used up.
    """
    np.right_shift(words, np.uint64(64 - _PLACE_BITS), out=places)
    np.take(_DIRECTIONS, places.view(np.int64), out=directions, mode="clip")
    words &= _FRACTION
    words |= _ONE
    angle: Floats = words.view(np.float64)
    angle -= 1.5
    angle *= 2.0 * math.pi / len(_DIRECTIONS)
    return angle


def _turned(
    angle: Floats,
    radius: Floats,
    cos: Floats,
    sin: Floats,
    out: "np.ndarray[tuple[int], np.dtype[np.complex128]]",
) -> None:
    """Write radius x (cos + i sin) of small angles; all else is overwritten."""
    np.multiply(angle, angle, out=sin)  # the square, until it is used up
    np.multiply(sin, 1 / 24, out=cos)
    cos -= 0.5
    cos *= sin
    cos += 1.0
    np.multiply(cos, radius, out=out.real)
    sin *= -1 / 6
    sin += 1.0
    sin *= angle
    np.multiply(sin, radius, out=out.imag)


def _table() -> "np.ndarray[tuple[int], np.dtype[np.complex128]]":
    """The middles of 4096 parts of a turn, computed from an eighth of it."""
    eighth = (np.arange(512) + 0.5) * (math.pi / 2048)
    low, high = np.sin(eighth), np.cos(eighth)
    falling = np.concatenate([high, low[::-1]])  # the cosine of a quarter
    rising = falling[::-1]
    cos = np.concatenate([falling, -rising, -falling, rising])
    sin = np.concatenate([rising, falling, -rising, -falling])
    return cos + 1j * sin


_DIRECTIONS = _table()
