"""The officer's orders: admitted one by one, and what they permit.

Written from docs/ledger.md, "Orders of the officer". Knows no budget's sums.
"""

from __future__ import annotations

import hashlib
from typing import Any

from guilder_verifier import canonical, edwards
from guilder_verifier.shapes import is_order

SCHEMA = "guilder-order-1"
SUBJECTS = {
    "budget": ("budget", "name"),
    "withdraw": ("budget", "name"),
    "public-size": ("public-size", "dataset"),
    "rule": ("rule", "name"),
    "approve": ("approve", "study_digest"),
    "revoke": ("revoke", "order_id"),
    "officer": ("officer", "schema"),
    "excuse": ("excuse", "server"),
    "gap": ("gap", "commitment"),
}
Order = dict[str, Any]


class Orders:
    """Every order so far.

    Attributes:
        officer: Public key that signs the next one.
        revoked: Times, by id.
    """

    def __init__(self, officer: str) -> None:
        self.officer = officer
        self.revoked: dict[str, str] = {}
        self._admitted: dict[str, Order] = {}  # entry, time and key of each, by id
        self._by_id: dict[str, Order] = {}
        self._newest: dict[tuple[str, str], str] = {}

    def admit(self, body: dict[str, Any], site: str, seq: int) -> Order:
        """Learn the order of an entry.

        Raises:
            ValueError: It is not of this site, not the officer's, not new, or none.
        """
        order = body["order"]
        demand(is_order(order, SCHEMA))
        form = canonical.dump(order)
        signature = unhex(body["signature"])
        signed = f"{SCHEMA}\n".encode() + form
        demand(edwards.verify(self.officer, signed, signature))
        demand(order["site"] == site)
        group, member = SUBJECTS[order["say"]]
        subject = (group, order[member])
        newest = self._by_id.get(self._newest.get(subject, ""))
        demand(newest is None or order["serial"] > newest["serial"])
        order_id = hashlib.sha256(form).hexdigest()
        self._by_id[order_id], self._newest[subject] = order, order_id
        admitted = {"entry": seq, "time": body["time"], "officer": self.officer}
        self._admitted[order_id] = admitted
        if order["say"] == "revoke":
            self.revoked[order["order_id"]] = body["time"]
        elif order["say"] == "officer":
            self.officer = order["public_key"]
        return dict(order)

    def lines(self) -> list[Order]:
        """Every order admitted, oldest first, as reports list them."""
        return [self.line(order_id) for order_id in self._by_id]

    def excuses(self) -> list[tuple[str, Order]]:
        """Servers that need not be asked, each with its order; oldest first."""
        return [
            (order["server"], self.line(order_id))
            for order_id, order in self._by_id.items()
            if order["say"] == "excuse"
        ]

    def line(self, order_id: str, with_officer: bool = False) -> Order:
        """One order as reports list it."""
        order, admitted = self._by_id[order_id], self._admitted[order_id]
        member = "study_name" if order["say"] == "approve" else None
        member = member or SUBJECTS[order["say"]][1]
        told = {
            "order_id": order_id,
            "say": order["say"],
            "name": "" if order["say"] == "officer" else str(order[member]),
            "entry": admitted["entry"],
            "admitted_at": admitted["time"],
            "issued": order["issued"],
            "expires": order["expires"],
            "revoked_at": self.revoked.get(order_id),
        }
        if with_officer:
            told["officer"] = fingerprint(admitted["officer"])
        return told

    def fingerprint(self) -> str:
        """Of the key in force."""
        return fingerprint(self.officer)

    def permit(self, order_id: str, grant: dict[str, Any]) -> bool:
        """Whether this very order permits this study at the time of its entry."""
        order = self._by_id.get(order_id)
        if order is None or order["say"] not in ("approve", "rule"):
            return False
        group, member = SUBJECTS[order["say"]]
        if self._newest[group, order[member]] != order_id or order_id in self.revoked:
            return False
        if order["expires"] is not None and grant["time"] >= order["expires"]:
            return False
        if order["say"] == "approve":
            return _is_approved(order, grant)
        return _is_within(order, grant)


def fingerprint(public_hex: str) -> str:
    """SHA-256 of a key, its first sixteen digits in fours."""
    digest = hashlib.sha256(bytes.fromhex(public_hex)).hexdigest()
    return " ".join(digest[at : at + 4] for at in range(0, 16, 4))


def unhex(digits: Any) -> bytes:
    """Bytes of small hexadecimal digits.

    Raises:
        ValueError: They are none.
    """
    raw = bytes.fromhex(digits)
    demand(raw.hex() == digits)
    return raw


def demand(holds: bool) -> None:
    """Raise ValueError unless `holds`."""
    if not holds:
        raise ValueError("what cannot be")


def _is_approved(order: Order, grant: dict[str, Any]) -> bool:
    if order["study_digest"] != grant["study_digest"]:
        return False
    within = grant["epsilon"] <= order["epsilon"] and grant["delta"] <= order["delta"]
    return bool(within or not grant["protected"])


def _is_within(rule: Order, grant: dict[str, Any]) -> bool:
    ceilings = rule["allow_unprotected"]
    if grant["protected"]:
        ceilings = (
            grant["epsilon"] <= rule["largest_epsilon"]
            and grant["delta"] <= rule["largest_delta"]
        )
    return bool(
        ceilings
        and grant["recipe"] in rule["recipes"]
        and (not rule["datasets"] or grant["dataset"] in rule["datasets"])
        and grant["unit"] in rule["units"]
        and grant["cohort"] >= rule["smallest_cohort"]
    )
