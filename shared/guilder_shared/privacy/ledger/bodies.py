"""What the body of any entry may be, and how one that cannot be is told.

Shared by the rooms that replay entries. It knows no kind of entry and keeps nothing.

The mathematics: an event is public data; whether it has noise at all is read off it.
Crash order: reads only.
"""

import re
from datetime import UTC, datetime
from typing import Any

from guilder_shared.errors import BudgetSpent, PlanError
from guilder_shared.privacy import events

Body = dict[str, Any]
FORMAT = 2  # of the entries' bodies, as docs/ledger.md describes them
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class ImpossibleError(Exception):
    """An entry that no correct writer would have written."""


# What reading the body of an entry raises if it cannot be.
CANNOT_BE = (
    ImpossibleError,
    BudgetSpent,
    PlanError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
)


def demand(holds: bool) -> None:
    """Raise ImpossibleError unless `holds`."""
    if not holds:
        raise ImpossibleError


def is_hex(value: object, num_digits: int) -> bool:
    """Whether `value` is text of exactly so many small hexadecimal digits."""
    digits = isinstance(value, str) and len(value) == num_digits
    return digits and set(str(value)) <= set("0123456789abcdef")


def stamp(seconds: float) -> str:
    """Seconds since 1970 as an entry's time, in whole seconds.

    Reports carry these times, so they must not time the reading of rows.
    """
    moment = datetime.fromtimestamp(int(seconds), UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def seconds(time: str) -> int:
    """An entry's time as seconds since 1970.

    Raises:
        ImpossibleError, ValueError: It is no such time.
    """
    demand(TIME.fullmatch(time) is not None)
    return int(datetime.fromisoformat(time).timestamp())


def is_protected(event: Body) -> bool:
    """False where any part of the event is a release without noise.

    Raises:
        PlanError: The event is not of the documented form (GLD-P003).
    """
    return events.merge([(event, 1)]) is not None


def num_steps(event: Body) -> int:
    """Noised sums in an event that one unit can move; 0 for one that is unprotected.

    Raises:
        PlanError: The event is not of the documented form (GLD-P003).
    """
    cases = events.merge([(event, 1)]) or ((),)
    return max(sum(leaf.num_steps for leaf in leaves) for leaves in cases)
