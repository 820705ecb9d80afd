"""The officer's orders: admitted one by one, and what they permit.

Written from docs/ledger.md, "Orders of the officer". Knows no budget's sums.
"""

from __future__ import annotations

import hashlib
from typing import Any

from guilder_verifier import canonical, edwards
from guilder_verifier.budgets import seconds
from guilder_verifier.events import number, whole

SCHEMA = "guilder-order-1"
ALWAYS = {"schema", "site", "serial", "issued", "expires", "say"}
MEMBERS = {
    "budget": {"name", "epsilon", "delta", "datasets", "unit", "period"},
    "withdraw": {"name"},
    "public-size": {"dataset", "rows", "persons"},
    "rule": {
        "name",
        "recipes",
        "datasets",
        "units",
        "largest_epsilon",
        "largest_delta",
        "smallest_cohort",
        "allow_unprotected",
    },
    "approve": {"study_digest", "study_name", "epsilon", "delta"},
    "revoke": {"order_id"},
    "officer": {"public_key"},
    "excuse": {"server"},
    "gap": {"server", "head_no", "commitment", "budget", "epsilon", "delta"},
}
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
        revoked: Ids.
    """

    def __init__(self, officer: str) -> None:
        self.officer = officer
        self.revoked: set[str] = set()
        self._by_id: dict[str, Order] = {}
        self._newest: dict[tuple[str, str], str] = {}

    def admit(self, body: dict[str, Any], site: str) -> Order:
        """Learn the order of an entry.

        Raises:
            ValueError: It is not of this site, not the officer's, not new, or none.
        """
        order = body["order"]
        form = canonical.dump(order)
        signature = bytes.fromhex(body["signature"])
        signed = f"{SCHEMA}\n".encode() + form
        demand(edwards.verify(self.officer, signed, signature))
        demand(order["schema"] == SCHEMA and order["site"] == site)
        demand(order.keys() == ALWAYS | MEMBERS[order["say"]])
        _check_terms(order)
        group, member = SUBJECTS[order["say"]]
        subject = (group, order[member])
        newest = self._by_id.get(self._newest.get(subject, ""))
        demand(newest is None or order["serial"] > newest["serial"])
        order_id = hashlib.sha256(form).hexdigest()
        self._by_id[order_id], self._newest[subject] = order, order_id
        if order["say"] == "revoke":
            self.revoked.add(order["order_id"])
        elif order["say"] == "officer":
            self.officer = order["public_key"]
        return dict(order)

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


def demand(holds: bool) -> None:
    """Raise ValueError unless `holds`."""
    if not holds:
        raise ValueError("what cannot be")


def _check_terms(order: Order) -> None:
    whole(order["serial"])
    seconds(order["issued"])
    say, expires = order["say"], order["expires"]
    may_expire = say in ("rule", "approve", "excuse")
    demand(expires is None or (may_expire and bool(seconds(expires))))
    demand(say != "rule" or expires is not None)
    if say == "gap":
        whole(order["head_no"])
        number(order["epsilon"], 1000.1)
        number(order["delta"], 1)
    if say == "budget":
        number(order["epsilon"], 1000.1)
        number(order["delta"], 1)
        demand(isinstance(order["datasets"], list) and bool(order["datasets"]))
        if order["period"] is not None:
            demand(order["period"].keys() == {"days", "epsilon"})
            whole(order["period"]["days"])
            number(order["period"]["epsilon"], 1000.1)


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
