"""Canonical JSON (RFC 8785), read strictly and written again, byte for byte.

What is read must be what would have been written: so no second spelling of a value,
no member twice and no number that loses digits gets through. Knows no report.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any, NoReturn

DEEPEST = 64  # levels of nesting; Guilder needs about ten
LARGEST_WHOLE = 2**53 - 1  # above it whole numbers are not exact in every language


def parse(raw: bytes) -> Any:
    """The value that these bytes are the canonical JSON of.

    Raises:
        ValueError: They are not canonical JSON of anything.
    """
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse)
        same = dump(value) == raw
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not same:
        raise ValueError("not the canonical form of what it says")
    return value


def dump(value: Any) -> bytes:
    """The canonical JSON of a value, UTF-8.

    Raises:
        ValueError: It holds something that JSON, or RFC 8785, cannot say.
    """
    return _text(value, DEEPEST).encode()


def _text(value: Any, depth: int) -> str:
    if value is None or isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        if abs(value) > LARGEST_WHOLE:
            raise ValueError("a whole number that is not exact everywhere")
        return str(value)
    if isinstance(value, float):
        return number(value)
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, list):
        return "[" + ",".join(_text(part, depth - 1) for part in value) + "]"
    if not isinstance(value, dict):
        raise ValueError("not a value of JSON")
    names = sorted(value, key=lambda name: name.encode("utf-16-be"))
    members = (
        json.dumps(name, ensure_ascii=False) + ":" + _text(value[name], depth - 1)
        for name in names
    )
    return "{" + ",".join(members) + "}"


def number(value: float) -> str:
    """A float as ECMAScript writes it: the fewest digits that read back as it.

    Raises:
        ValueError: It is not finite.
    """
    if not math.isfinite(value):
        raise ValueError("a number that is not finite")
    if value == 0:
        return "0"
    sign, all_digits, exponent = Decimal(repr(value)).as_tuple()
    assert isinstance(exponent, int)
    digits = "".join(map(str, all_digits)).rstrip("0")
    point = len(all_digits) + exponent  # digits before the decimal point
    return "-" * sign + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    """Source: ECMA-262, Number::toString, steps 6 to 10."""
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{mantissa}e{point - 1:+d}"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
