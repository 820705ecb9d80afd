"""What the members of each kind of entry, and of each order, must be.

Written from docs/ledger.md. Other members are allowed in an entry, none in an order.
Knows no sum and no signature.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from guilder_verifier.budgets import seconds
from guilder_verifier.renyi import ORDERS

UNITS = ("record", "person", "site")
MOST_EPSILON, MOST_DAYS, MOST_LIST, MOST_HEADS = 1000, 36_500, 1_000, 1_000_000
HEX = re.compile(r"[0-9a-f]*")
Holds = Callable[[Any], bool]
ABSENT = object()


def is_text(value: Any) -> bool:
    """Any text."""
    return isinstance(value, str)


def is_flag(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """A whole number from 0 on."""
    return type(value) is int and value >= 0


def is_count(value: Any) -> bool:
    """A whole number from 1 on."""
    return type(value) is int and value >= 1


def is_number(value: Any) -> bool:
    """A finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def is_object(value: Any) -> bool:
    """A JSON object."""
    return isinstance(value, dict)


def is_unit(value: Any) -> bool:
    """Whose presence a study may hide."""
    return isinstance(value, str) and value in UNITS


def is_delta(value: Any) -> bool:
    """A chance: above 0 and below 1."""
    return is_number(value) and 0 < value < 1


def is_epsilon(value: Any) -> bool:
    """What an officer may type as an epsilon."""
    return is_number(value) and 0 < value <= MOST_EPSILON


def is_name(value: Any) -> bool:
    """A name that can be shown: nothing that moves a cursor or turns the writing."""
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def is_time(value: Any) -> bool:
    """A time as entries tell it."""
    try:
        return isinstance(value, str) and isinstance(seconds(value), int)
    except ValueError:
        return False


def is_hex(num_digits: int) -> Holds:
    """So many small hexadecimal digits."""
    return lambda value: (
        isinstance(value, str)
        and len(value) == num_digits
        and bool(HEX.fullmatch(value))
    )


def _or_absent(holds: Holds) -> Holds:
    return lambda value: value is ABSENT or holds(value)


def _or_null(holds: Holds) -> Holds:
    return lambda value: value is None or holds(value)


def _list_of(holds: Holds, least: int) -> Holds:
    return lambda value: (
        isinstance(value, list)
        and least <= len(value) <= MOST_LIST
        and all(holds(item) for item in value)
    )


def _is_charge(value: Any) -> bool:
    return is_object(value) and all(
        is_number(value.get(str(order))) and value[str(order)] >= 0 for order in ORDERS
    )


def _is_meta(value: Any) -> bool:
    return is_object(value) and (
        _or_absent(is_text)(value.get("study", ABSENT))
        and _or_absent(is_flag)(value.get("simulated", ABSENT))
        and _or_absent(is_object)(value.get("plan", ABSENT))
    )


def _is_period(value: Any) -> bool:
    if not is_object(value) or value.keys() != {"days", "epsilon"}:
        return False
    days = value["days"]
    return is_count(days) and days <= MOST_DAYS and is_epsilon(value["epsilon"])


TURN: dict[str, Holds] = {"grant_id": is_text, "turn_no": is_count}
ENTRIES: dict[str, dict[str, Holds]] = {
    "ledger": {
        "format": is_count,
        "site": is_text,
        "public_key": is_hex(64),
        "officer": is_hex(64),
    },
    "order": {"order": is_object, "signature": is_hex(128)},
    "reserve": {
        "grant_id": is_text,
        "run_id": is_text,
        "server": is_text,
        "study_digest": is_text,
        "study_name": is_text,
        "dataset": is_text,
        "recipe": is_text,
        "unit": is_unit,
        "cohort": is_count,
        "num_turns": is_count,
        "approval": is_hex(64),
        "epsilon": lambda value: is_number(value) and value > 0,
        "delta": is_delta,
        "turn_event": is_object,
        "protected": is_flag,
        "renyi": _is_charge,
        "meta": _is_meta,
        "evidence": _or_absent(_or_null(is_object)),
    },
    "refuse": {},
    "spend": {
        **TURN,
        "request_hash": is_text,
        "attempt": is_count,
        "measures": _or_absent(is_whole),
    },
    "seal": {**TURN, "sha256": is_text, "head_no": is_count, "salt": is_hex(32)},
    "give-up": TURN,
    "receipt": {
        **TURN,
        "receipt": is_text,
        "witness": _or_absent(_or_null(is_object)),
    },
    "forgot": {"server": is_text, "head_no": is_count, "remembers": is_whole},
    "cohort": {"grant_id": is_text, "commitment": is_hex(64)},
    "exclude": {
        "dataset": lambda value: is_text(value) and value != "",
        "commitment": is_hex(64),
        "in_force": is_flag,
    },
    "close": {"grant_id": is_text, "num_spent": is_whole},
}
EXPIRING = ("rule", "approve", "excuse")
HEADER: dict[str, Holds] = {
    "site": is_name,
    "serial": is_count,
    "issued": is_time,
    "expires": _or_null(is_time),
}
ORDER_KINDS: dict[str, dict[str, Holds]] = {
    "budget": {
        "name": is_name,
        "epsilon": is_epsilon,
        "delta": is_delta,
        "datasets": _list_of(is_name, 1),
        "unit": _or_null(is_unit),
        "period": _or_null(_is_period),
    },
    "withdraw": {"name": is_name},
    "public-size": {
        "dataset": is_name,
        "rows": is_count,
        "persons": _or_null(is_count),
    },
    "rule": {
        "name": is_name,
        "recipes": _list_of(is_name, 1),
        "datasets": _list_of(is_name, 0),
        "units": _list_of(is_unit, 1),
        "largest_epsilon": is_epsilon,
        "largest_delta": is_delta,
        "smallest_cohort": is_count,
        "allow_unprotected": is_flag,
    },
    "approve": {
        "study_digest": is_hex(64),
        "study_name": is_name,
        "epsilon": is_epsilon,
        "delta": is_delta,
    },
    "revoke": {"order_id": is_hex(64)},
    "officer": {"public_key": is_hex(64)},
    "excuse": {"server": is_name},
    "gap": {
        "server": is_name,
        "head_no": lambda value: is_count(value) and value <= MOST_HEADS,
        "commitment": is_hex(64),
        "budget": is_name,
        "epsilon": is_epsilon,
        "delta": is_delta,
    },
}


def is_entry(kind: str, body: Any) -> bool:
    """Whether an entry's body has the members of its kind, each as it must be."""
    if not is_object(body) or not is_time(body.get("time")):
        return False
    members = ENTRIES[kind].items()
    return all(holds(body.get(name, ABSENT)) for name, holds in members)


def is_order(order: dict[str, Any], schema: str) -> bool:
    """Whether an order has exactly the members of what it says, each possible."""
    kind = order.get("say")
    if order.get("schema") != schema or kind not in ORDER_KINDS:
        return False
    members = {**HEADER, **ORDER_KINDS[kind]}
    if order.keys() != {"schema", "say", *members}:
        return False
    expires = order["expires"] is not None
    return all(holds(order[name]) for name, holds in members.items()) and (
        kind in EXPIRING if expires else kind != "rule"
    )
