"""Numbers and field heads as protobuf writes them.

For messages whose one long field is read and written where it lies. It knows no
message.
"""

from typing import Final

VARINT: Final = 0  # wire types
LENGTH_DELIMITED: Final = 2
LONGEST: Final = 10  # bytes of a number


def written(number: int) -> bytes:
    """A number that is not negative, seven bits a byte, lowest first."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def head_of(field_no: int, num_bytes: int) -> bytes:
    """What stands before so many bytes of a field."""
    return written(field_no << 3 | LENGTH_DELIMITED) + written(num_bytes)


def find(start: bytes, field_no: int) -> tuple[int, int, int] | None:
    """Where a field of bytes lies in the message that begins with `start`.

    Returns:
        Where its head begins, where its bytes do, and how many they are; None if it
        does not begin in `start`, or something is there that is skipped nowhere here.
    """
    place = 0
    while place < len(start):
        tag = _read(start, place)
        value = None if tag is None else _read(start, tag[1])
        if tag is None or value is None:
            return None
        if tag[0] == field_no << 3 | LENGTH_DELIMITED:
            return place, value[1], value[0]
        if tag[0] & 7 not in (VARINT, LENGTH_DELIMITED):
            return None
        place = value[1] + (value[0] if tag[0] & 7 == LENGTH_DELIMITED else 0)
    return None


def _read(data: bytes, place: int) -> tuple[int, int] | None:
    """A number, and the place behind it; None if it does not end here."""
    number = 0
    for shift, byte in enumerate(data[place : place + LONGEST]):
        number |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return number, place + shift + 1
    return None
