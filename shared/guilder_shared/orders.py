"""An officer's orders: what a data-protection officer decides, as signed data.

An order is canonical JSON with the Ed25519 signature of the officer's key, which may
be kept on another computer. This module knows no ledger, no folder and no clock:
whether an order is in force is the ledger's to say, which admits it as an entry.

The mathematics: none; an order sets limits, the ledger's filters keep them. What it
holds is public: names, typed numbers, digests. Crash order: nothing is written here.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Self

import rfc8785

from guilder_shared.errors import BudgetSpent
from guilder_shared.identity import SigningKey, unhex, verify

SCHEMA = "guilder-order-1"
UNITS = ("record", "person", "site")
MOST_BYTES = 1 << 20
MOST_EPSILON = 1_000
MOST_HEADS = 1_000_000  # turns of one site for one server
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
HEX = re.compile(r"[0-9a-f]{64}")
ALWAYS = {"schema", "site", "serial", "issued", "expires", "say"}


@dataclass(frozen=True)
class Order:
    """One order; made by `sign` or `parse`, both of which check its form.

    Attributes:
        content: Everything but the signature; a JSON object, see `docs/ledger.md`.
        signature: Ed25519 of the officer's key, 128 hexadecimal digits.
    """

    content: Mapping[str, Any]
    signature: str

    @classmethod
    def sign(
        cls,
        key: SigningKey,
        say: str,
        *,
        site: str,
        serial: int,
        issued: str,
        expires: str | None = None,
        **terms: Any,
    ) -> Self:
        """Make an order.

        Args:
            key: The officer's.
            say: The kind of order, one of `TERMS`.
            site: The one site it is for.
            serial: Milliseconds since 1970; of two on one subject the higher holds.
            issued: When it was signed, for people: UTC, as 2026-01-31T12:00:00Z.
            expires: From when on it permits nothing new; None: never.
            terms: What the kind says, all of it.

        Raises:
            BudgetSpent: No such order can be (GLD-B014).
        """
        told = {"schema": SCHEMA, "site": site, "serial": serial, "issued": issued}
        content = {**told, "expires": expires, "say": say, **terms}
        check(content)
        return cls(content, key.sign(_signed_bytes(content)).hex())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read what `to_json` wrote; layout and order of members do not matter.

        Raises:
            BudgetSpent: It is no order (GLD-B014).
        """
        try:
            if len(data) > MOST_BYTES:
                raise ValueError
            content = json.loads(data)
            signature = content.pop("signature")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise _no_order("it is no JSON object with a signature") from None
        return cls.of(content, signature)

    @classmethod
    def of(cls, content: Any, signature: Any) -> Self:
        """An order from its two parts, as an entry of the ledger holds them.

        Raises:
            BudgetSpent: It is no order (GLD-B014).
        """
        check(content)
        if not isinstance(signature, str):
            raise _no_order("signature is not text")
        return cls(content, signature)

    def to_json(self) -> bytes:
        """The order's file: canonical JSON, signature included, and one newline."""
        return rfc8785.dumps({**self.content, "signature": self.signature}) + b"\n"

    @cached_property
    def order_id(self) -> str:
        """SHA-256 of the canonical JSON of `content`, in hexadecimal digits."""
        return hashlib.sha256(rfc8785.dumps(dict(self.content))).hexdigest()

    @property
    def say(self) -> str:
        """The kind of order, one of `TERMS`."""
        return str(self.content["say"])

    @property
    def site(self) -> str:
        """The one site it is for."""
        return str(self.content["site"])

    @property
    def serial(self) -> int:
        """Milliseconds since 1970; of two on one subject the higher holds."""
        return int(self.content["serial"])

    @property
    def expires(self) -> str | None:
        """From when on it permits nothing new; None: never."""
        expires: str | None = self.content["expires"]
        return expires

    @property
    def subject(self) -> tuple[str, str]:
        """What it is about; a later order on the same subject takes its place."""
        family, member = SUBJECT[self.say]
        return family, str(self.content[member]) if member else ""

    def is_signed_by(self, public_hex: str) -> bool:
        """Say whether the officer's key of `public_hex` signed exactly this."""
        signature = unhex(self.signature)
        return verify(public_hex, _signed_bytes(self.content), signature)


def check(content: Any) -> None:
    """Raise unless `content` has exactly the members of its kind, all possible.

    Raises:
        BudgetSpent: It has not (GLD-B014); the text names the member.
    """
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise _no_order(f"its schema is not {SCHEMA!r}")
    terms = TERMS.get(str(content.get("say")))
    if terms is None:
        raise _no_order("it says nothing that an order can say")
    wanted = ALWAYS | terms.keys()
    if content.keys() != wanted:
        odd = sorted(map(str, content.keys() ^ wanted))
        raise _no_order(f"missing or unknown: {', '.join(odd)[:200]}")
    for name, holds in {**HEADER, **terms}.items():
        if not holds(content[name]):
            raise _no_order(f"{name} cannot be what it is")
    if content["say"] == "rule" and content["expires"] is None:
        raise _no_order("a standing rule must expire")
    if content["expires"] is not None and content["say"] not in EXPIRING:
        raise _no_order("only a rule, an approval or an excuse expires")


def _signed_bytes(content: Mapping[str, Any]) -> bytes:
    return SCHEMA.encode() + b"\n" + rfc8785.dumps(dict(content))


def _no_order(reason: str) -> BudgetSpent:
    return BudgetSpent(
        "GLD-B014",
        f"this is no order of an officer: {reason}",
        why="An order is read as a whole or not at all.",
        fix="Have the officer make it anew with `guilder privacy`.",
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_epsilon(value: Any) -> bool:
    return _is_number(value) and 0 < value <= MOST_EPSILON


def _is_delta(value: Any) -> bool:
    return _is_number(value) and 0 < value < 1


def _is_count(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and 0 < value < 1 << 53


def _is_time(value: Any) -> bool:
    if not isinstance(value, str) or not TIME.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_hex(value: Any) -> bool:
    return isinstance(value, str) and HEX.fullmatch(value) is not None


def _is_list(holds: Callable[[Any], bool], least: int) -> Callable[[Any], bool]:
    def check_list(value: Any) -> bool:
        listed = isinstance(value, list) and least <= len(value) <= 1_000
        return listed and all(holds(item) for item in value)

    return check_list


def _or_null(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _is_unit(value: Any) -> bool:
    return value in UNITS


def _is_period(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"days", "epsilon"}:
        return False
    days = value["days"]
    return _is_count(days) and days <= 36_500 and _is_epsilon(value["epsilon"])


HEADER: dict[str, Callable[[Any], bool]] = {
    "site": _is_name,
    "serial": _is_count,
    "issued": _is_time,
    "expires": _or_null(_is_time),
}
TERMS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "budget": {
        "name": _is_name,
        "epsilon": _is_epsilon,
        "delta": _is_delta,
        "datasets": _is_list(_is_name, 1),
        "unit": _or_null(_is_unit),
        "period": _or_null(_is_period),
    },
    "withdraw": {"name": _is_name},
    "public-size": {
        "dataset": _is_name,
        "rows": _is_count,
        "persons": _or_null(_is_count),
    },
    "rule": {
        "name": _is_name,
        "recipes": _is_list(_is_name, 1),
        "datasets": _is_list(_is_name, 0),
        "units": _is_list(_is_unit, 1),
        "largest_epsilon": _is_epsilon,
        "largest_delta": _is_delta,
        "smallest_cohort": _is_count,
        "allow_unprotected": lambda value: isinstance(value, bool),
    },
    "approve": {
        "study_digest": _is_hex,
        "study_name": _is_name,
        "epsilon": _is_epsilon,
        "delta": _is_delta,
    },
    "revoke": {"order_id": _is_hex},
    "officer": {"public_key": _is_hex},
    "excuse": {"server": _is_name},
    "gap": {
        "server": _is_name,
        "head_no": lambda value: _is_count(value) and value <= MOST_HEADS,
        "commitment": _is_hex,
        "budget": _is_name,
        "epsilon": _is_epsilon,
        "delta": _is_delta,
    },
}
EXPIRING = ("rule", "approve", "excuse")
# A budget and its withdrawal are one subject: an old budget must not undo the latter.
SUBJECT = {
    "budget": ("budget", "name"),
    "withdraw": ("budget", "name"),
    "public-size": ("public-size", "dataset"),
    "rule": ("rule", "name"),
    "approve": ("approve", "study_digest"),
    "revoke": ("revoke", "order_id"),
    "officer": ("officer", ""),
    "excuse": ("excuse", "server"),
    "gap": ("gap", "commitment"),
}
