"""Ed25519 signatures, checked in whole numbers: a few tenths of a millisecond each.

Only checking: no private key ever comes here, so running time tells nothing that
matters. Source: RFC 8032, section 5.1; addition: Hisil et al. 2008, section 3.1, on
-x^2 + y^2 = 1 + d x^2 y^2, whose formula holds for every pair of points.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)
BASE_Y = 4 * pow(5, P - 2, P) % P

WINDOW = 4  # bits of a scalar looked up at once
NUM_WINDOWS = 64

Point = tuple[int, int, int, int]  # X, Y, Z, T with x = X/Z, y = Y/Z, x y = T/Z
Ready = tuple[int, int, int, int]  # Y - X, Y + X, 2 d T, 2 Z: what an addition needs
Table = list[list[Ready]]

NEUTRAL: Point = (0, 1, 1, 0)


@lru_cache(maxsize=4096)
def verify(public_hex: str, message: bytes, signature: bytes) -> bool:
    """Say whether a signature is of this key over this message.

    Entries that a report and a ledger share are checked once.

    Args:
        public_hex: 64 hexadecimal digits.
        message: What was signed.
        signature: 64 bytes; anything else is no signature.
    """
    table = _key_table(public_hex)
    scalar = int.from_bytes(signature[32:], "little")
    if table is None or len(signature) != 64 or scalar >= ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + bytes.fromhex(public_hex) + message)
    challenge = int.from_bytes(digest.digest(), "little") % ORDER
    # s B = R + h A, so R = s B + h (-A)
    chosen = [*_chosen(_base_table(), scalar), *_chosen(table, challenge)]
    return _encode(_sum(chosen)) == signature[:32]


@lru_cache(maxsize=1)
def _base_table() -> Table:
    x = _x_of(BASE_Y, 0)
    assert x is not None
    return _table((x, BASE_Y, 1, x * BASE_Y % P))


@lru_cache(maxsize=64)
def _key_table(public_hex: str) -> Table | None:
    """Multiples of minus the key; None where it is no key."""
    try:
        raw = bytes.fromhex(public_hex)
    except (ValueError, TypeError):
        return None
    number = int.from_bytes(raw, "little")
    y, odd = number % 2**255, number >> 255
    if len(raw) != 32 or len(public_hex) != 64 or y >= P:
        return None
    x = _x_of(y, odd)
    if x is None:
        return None
    point: Point = (P - x, y, 1, (P - x) * y % P)
    return None if _is_small(point) else _table(point)


def _is_small(point: Point) -> bool:
    """Points of order 8 and less: with such a "key" anybody could sign."""
    for _ in range(3):
        point = _add(point, _ready(point))
    return point[0] == 0


def _x_of(y: int, odd: int) -> int | None:
    """The x of a point with this y; None where there is none."""
    top, bottom = (y * y - 1) % P, (D * y * y + 1) % P
    x = top * bottom**3 * pow(top * bottom**7, (P - 5) // 8, P) % P
    if bottom * x * x % P != top:
        x = x * ROOT_OF_MINUS_1 % P
    if bottom * x * x % P != top or (x == 0 and odd):
        return None
    return P - x if x % 2 != odd else x


def _ready(point: Point) -> Ready:
    x, y, z, t = point
    return y - x, y + x, 2 * D * t % P, 2 * z


def _add(left: Point, right: Ready) -> Point:
    x, y, z, t = left
    minus, plus, twice_dt, twice_z = right
    a, b = (y - x) * minus % P, (y + x) * plus % P
    c, d = t * twice_dt % P, z * twice_z % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _table(point: Point) -> Table:
    """For each window its sixteen multiples, so that no doubling is left to do."""
    rows = []
    for _ in range(NUM_WINDOWS):
        step, multiple, row = _ready(point), NEUTRAL, []
        for _ in range(1 << WINDOW):
            row.append(_ready(multiple))
            multiple = _add(multiple, step)
        rows.append(row)
        point = multiple  # sixteen times the old one
    return rows


def _chosen(table: Table, scalar: int) -> Iterable[Ready]:
    for row in table:
        yield row[scalar & 15]
        scalar >>= WINDOW


def _sum(points: Iterable[Ready]) -> Point:
    total = NEUTRAL
    for point in points:
        total = _add(total, point)
    return total


def _encode(point: Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, P - 2, P)
    number = (y * inverse % P) | ((x * inverse % P & 1) << 255)
    return number.to_bytes(32, "little")
