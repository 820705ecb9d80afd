"""What the members of an entry's body must be, as the documentation of ledgers says.

A ledger's own writer makes nothing else; a file from elsewhere may hold anything, and
one verifier must not read as 1 what another reads as true. Orders have their own
(`orders.check`). Replays nothing; other members than these are allowed.

The mathematics: none. Crash order: reads only.
"""

import math
from collections.abc import Callable
from typing import Any

from guilder_shared.chain import Entry
from guilder_shared.errors import IntegrityError
from guilder_shared.orders import UNITS
from guilder_shared.privacy.ledger.bodies import TIME, is_hex
from guilder_shared.privacy.ledger.filters import ORDERS

Holds = Callable[[Any], bool]


def check(entry: Entry) -> None:
    """Raise unless an entry's members are what its kind has (GLD-I007).

    Raises:
        IntegrityError: GLD-I007, with the entry's number.
    """
    try:
        body = entry.content()
    except ValueError:
        body = {}
    if not _is_whole_body(entry.kind, body):
        raise IntegrityError(
            "GLD-I007",
            f"entry {entry.seq} ({entry.kind}) cannot follow the entries before it",
            why="It is signed, but no correct Guilder of this format wrote it.",
            fix="Check that this Guilder is not older than the ledger.",
        )


ABSENT = object()


def _is_whole_body(kind: str, body: Any) -> bool:
    members = KINDS.get(kind)
    if members is None or not isinstance(body, dict) or not _is_time(body.get("time")):
        return False
    return all(holds(body.get(name, ABSENT)) for name, holds in members.items())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and TIME.fullmatch(value) is not None


def _of_hex(num_digits: int) -> Holds:
    return lambda value: is_hex(value, num_digits)


def _or_absent(holds: Holds) -> Holds:
    return lambda value: value is ABSENT or holds(value)


def _or_null(holds: Holds) -> Holds:
    return lambda value: value is ABSENT or value is None or holds(value)


def _is_charge(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_number(value.get(str(order))) and value[str(order)] >= 0 for order in ORDERS
    )


def _is_meta(value: Any) -> bool:
    return isinstance(value, dict) and all(
        holds(value.get(name, ABSENT))
        for name, holds in {
            "study": _or_absent(_is_text),
            "simulated": _or_absent(_is_flag),
            "plan": _or_absent(_is_object),
        }.items()
    )


TURN: dict[str, Holds] = {"grant_id": _is_text, "turn_no": _is_count}
KINDS: dict[str, dict[str, Holds]] = {
    "ledger": {
        "format": _is_count,
        "site": _is_text,
        "public_key": _of_hex(64),
        "officer": _of_hex(64),
    },
    "order": {"order": _is_object, "signature": _of_hex(128)},
    "reserve": {
        **dict.fromkeys(("grant_id", "run_id", "server", "study_digest"), _is_text),
        **dict.fromkeys(("study_name", "dataset", "recipe"), _is_text),
        "unit": lambda value: isinstance(value, str) and value in UNITS,
        "cohort": _is_count,
        "num_turns": _is_count,
        "approval": _of_hex(64),
        "epsilon": lambda value: _is_number(value) and value > 0,
        "delta": lambda value: _is_number(value) and 0 < value < 1,
        "turn_event": _is_object,
        "protected": _is_flag,
        "renyi": _is_charge,
        "meta": _is_meta,
        "evidence": _or_null(_is_object),
    },
    "refuse": {},
    "spend": {
        **TURN,
        "request_hash": _is_text,
        "attempt": _is_count,
        "measures": _or_absent(_is_whole),
    },
    "seal": {**TURN, "sha256": _is_text, "head_no": _is_count, "salt": _of_hex(32)},
    "give-up": TURN,
    "receipt": {**TURN, "receipt": _is_text, "witness": _or_null(_is_object)},
    "forgot": {"server": _is_text, "head_no": _is_count, "remembers": _is_whole},
    "cohort": {"grant_id": _is_text, "commitment": _of_hex(64)},
    "exclude": {
        "dataset": lambda value: isinstance(value, str) and value != "",
        "commitment": _of_hex(64),
        "in_force": _is_flag,
    },
    "close": {"grant_id": _is_text, "num_spent": _is_whole},
}
