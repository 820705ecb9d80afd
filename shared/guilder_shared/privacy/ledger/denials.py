"""The officer's no, in words: orders that are not admitted, studies not permitted.

Each function makes one error and raises nothing. No message holds anything computed
from rows. The mathematics and the crash order are `decisions.py`'s.
"""

from guilder_shared.errors import BudgetSpent
from guilder_shared.orders import Order
from guilder_shared.privacy.ledger.grants import Asked

LEFT_OUT = "The order was left out; what the ledger holds stands."


def not_permitted(site: str, asked: Asked) -> BudgetSpent:
    """No approval and no standing rule is about a study (GLD-B010)."""
    return BudgetSpent(
        "GLD-B010",
        f"site {site!r}: the officer has approved no study {asked.study_digest}, and "
        f"no standing rule covers it (recipe {asked.recipe!r}, dataset "
        f"{asked.dataset!r}, unit {asked.unit!r}, epsilon {asked.epsilon:g}, delta "
        f"{asked.delta:g}, {asked.cohort} sites at least)",
        why="A study runs only with an order that the officer's key has signed.",
        fix="Have the officer approve this digest, or make a standing rule.",
    )


def expired(site: str, order: Order, time: str) -> BudgetSpent:
    """The approval or rule for a study has expired (GLD-B011)."""
    return BudgetSpent(
        "GLD-B011",
        f"site {site!r}: {_name(order)} expired at {order.expires}; it is {time}",
        why="From then on it permits no new study.",
        fix="Have the officer sign a new one.",
    )


def revoked(site: str, order: Order, time: str) -> BudgetSpent:
    """The approval or rule for a study was revoked (GLD-B012)."""
    return BudgetSpent(
        "GLD-B012",
        f"site {site!r}: {_name(order)} was revoked at {time}",
        why="What the officer takes back permits no new study and no new turn.",
        fix="Ask the officer; a new approval or rule has a number of its own.",
    )


def not_the_officers(order: Order, officer: str) -> BudgetSpent:
    """An order that another key signed, or that was edited (GLD-B013)."""
    return BudgetSpent(
        "GLD-B013",
        f"{_name(order)} was not signed by the officer's key {officer[:16]}…",
        why="It was edited, or signed by a key that does not decide here. " + LEFT_OUT,
        fix="Have the officer sign it; a new key needs an order of the old one.",
    )


def older(order: Order, newest: Order) -> BudgetSpent:
    """An order on a subject that has a newer one (GLD-B015)."""
    return BudgetSpent(
        "GLD-B015",
        f"{_name(order)} has the serial {order.serial}, but {newest.serial} is "
        "admitted on the same subject",
        why="An old order put back must not undo a newer one. " + LEFT_OUT,
        fix="If the old terms are meant, have the officer sign them anew.",
    )


def other_sites_order(order: Order, site: str) -> BudgetSpent:
    """An order for another site (GLD-B018)."""
    return BudgetSpent(
        "GLD-B018",
        f"{_name(order)} is for site {order.site!r}, not for {site!r}",
        why="An order holds at the one site that it names. " + LEFT_OUT,
        fix="Put it into that site's orders, or have the officer make one for here.",
    )


def _name(order: Order) -> str:
    """How a person finds the order again."""
    subject = order.subject[1]
    return f"the order {order.say!r} {subject[:64]!r} ({order.order_id[:16]}…)"
