"""What the officer has decided: orders admitted, and what they permit today.

Replays `order` entries; the writer asks the same questions before it writes one. It
knows no file, and no time but the one it is given.

The mathematics: none of its own; a permission sets ceilings, and the filters decide
beside it. All that is compared here is public.
Crash order: an order counts once its entry is durable. A replayed older order cannot
undo a newer one, for of two on one subject only the higher serial is admitted.
"""

from dataclasses import dataclass

from guilder_shared.orders import Order
from guilder_shared.privacy.ledger import denials
from guilder_shared.privacy.ledger.grants import Asked


@dataclass(frozen=True)
class Admitted:
    """An order that stands in the ledger.

    Attributes:
        order: What the officer signed.
        seq: Of its entry.
        time: Of its entry.
        public_hex: The officer's key at that time, which signed it.
    """

    order: Order
    seq: int
    time: str
    public_hex: str


@dataclass(frozen=True)
class Permission:
    """The order that permits a study.

    Attributes:
        order_id: Of an approval or a standing rule.
        say: "approve" or "rule".
        name: Of the rule, or of the study approved.
        expires: No new study is accepted under it from then on; None: never.
    """

    order_id: str
    say: str
    name: str
    expires: str | None


@dataclass(frozen=True)
class PublicSize:
    """How large a dataset is, as all may know: typed and signed, never counted.

    Attributes:
        rows: Rows.
        persons: Persons; None if the officer named no number.
        order_id: Of the order that says so.
    """

    rows: int
    persons: int | None
    order_id: str


class Decisions:
    """Every order admitted so far, and which of them hold."""

    def __init__(self) -> None:
        self.officer = ""  # public key in force, hexadecimal
        self.admitted: dict[str, Admitted] = {}  # by order id, oldest first
        self.revoked: dict[str, str] = {}  # order id: time of the revocation
        self.sizes: dict[str, PublicSize] = {}  # by dataset
        self._newest: dict[tuple[str, str], Order] = {}  # by subject
        self._rules: dict[str, Order] = {}  # by name: few, where approvals are many

    def demand_admissible(self, order: Order, site: str) -> None:
        """Raise unless the order may become an entry now.

        Raises:
            BudgetSpent: It is for another site (GLD-B018), was not signed by the
                officer's key in force (GLD-B013), or a newer one on its subject is
                admitted already (GLD-B015).
        """
        if order.site != site:
            raise denials.other_sites_order(order, site)
        if not order.is_signed_by(self.officer):
            raise denials.not_the_officers(order, self.officer)
        newest = self._newest.get(order.subject)
        if newest is not None and order.serial <= newest.serial:
            raise denials.older(order, newest)

    def admit(self, order: Order, seq: int, time: str) -> None:
        """Learn an order from its entry."""
        admitted = Admitted(order, seq, time, self.officer)
        self.admitted[order.order_id] = admitted
        self._newest[order.subject] = order
        terms = order.content
        if order.say == "rule":
            self._rules[str(terms["name"])] = order
        elif order.say == "revoke":
            self.revoked[str(terms["order_id"])] = time
        elif order.say == "officer":
            self.officer = str(terms["public_key"])
        elif order.say == "public-size":
            self.sizes[str(terms["dataset"])] = PublicSize(
                int(terms["rows"]), terms["persons"], order.order_id
            )

    def in_force(self, time: str) -> list[Admitted]:
        """Approvals and rules that permit studies at this time, oldest first."""
        return [
            admitted
            for order_id, admitted in self.admitted.items()
            if admitted.order.say in ("approve", "rule")
            and self._holds(order_id, admitted.order, time)
        ]

    def excused(self, time: str) -> set[str]:
        """Servers that need not be asked before the site spends, at this time."""
        return {
            str(admitted.order.content["server"])
            for order_id, admitted in self.admitted.items()
            if admitted.order.say == "excuse"
            and self._holds(order_id, admitted.order, time)
        }

    def permits(self, order_id: str, asked: Asked, time: str) -> bool:
        """Whether this very order permits a study at this time."""
        admitted = self.admitted.get(order_id)
        if admitted is None:
            return False
        return self._holds(order_id, admitted.order, time) and _covers(
            admitted.order, asked
        )

    def permission(self, asked: Asked, time: str, *, site: str) -> Permission:
        """The approval or, if there is none, the first rule that permits a study.

        Args:
            asked: What the study asks.
            time: Now, as entries tell it.
            site: For the error's text.

        Raises:
            BudgetSpent: What covers the study was revoked (GLD-B012) or has
                expired (GLD-B011), or nothing covers it (GLD-B010).
        """
        candidates = self._about(asked)
        for order in candidates:
            if self._holds(order.order_id, order, time):
                return _permission(order)
        for order in candidates:
            if order.order_id in self.revoked:
                raise denials.revoked(site, order, self.revoked[order.order_id])
            raise denials.expired(site, order, time)
        raise denials.not_permitted(site, asked)

    def _about(self, asked: Asked) -> list[Order]:
        """The newest approval and the newest rules that cover a study."""
        approval = self._newest.get(("approve", asked.study_digest))
        found = [*([approval] if approval else []), *self._rules.values()]
        return [order for order in found if _covers(order, asked)]

    def _holds(self, order_id: str, order: Order, time: str) -> bool:
        is_newest = self._newest[order.subject] is order
        return is_newest and order_id not in self.revoked and not _expired(order, time)


def _permission(order: Order) -> Permission:
    terms = order.content
    name = str(terms["study_name"] if order.say == "approve" else terms["name"])
    return Permission(order.order_id, order.say, name, order.expires)


def _expired(order: Order, time: str) -> bool:
    return order.expires is not None and time >= order.expires


def _covers(order: Order, asked: Asked) -> bool:
    """Whether an approval or a rule is about a study and its ceilings hold it."""
    terms = order.content
    if order.say == "approve":
        if terms["study_digest"] != asked.study_digest:
            return False
        return not asked.is_protected or (
            asked.epsilon <= terms["epsilon"] and asked.delta <= terms["delta"]
        )
    if asked.is_protected:
        ceilings = (
            asked.epsilon <= terms["largest_epsilon"]
            and asked.delta <= terms["largest_delta"]
        )
    else:
        ceilings = bool(terms["allow_unprotected"])
    return (
        ceilings
        and asked.recipe in terms["recipes"]
        and (not terms["datasets"] or asked.dataset in terms["datasets"])
        and asked.unit in terms["units"]
        and asked.cohort >= terms["smallest_cohort"]
    )
