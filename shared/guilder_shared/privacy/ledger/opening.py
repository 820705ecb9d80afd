"""Replaying what a site is and what its officer decides: `ledger` and `order`.

It writes nothing; `decisions.py` and `accounts.py` keep what it learns.

The mathematics: `accounts.py`. Crash order: `book.py`.
"""

from collections.abc import Callable
from dataclasses import replace

from guilder_shared.chain import Entry
from guilder_shared.errors import IntegrityError
from guilder_shared.orders import Order
from guilder_shared.privacy.ledger import budgets
from guilder_shared.privacy.ledger.bodies import FORMAT, Body, demand, is_hex, seconds
from guilder_shared.privacy.ledger.heads import Head
from guilder_shared.privacy.ledger.pages import Pages


def _begin(book: Pages, _: Entry, body: Body) -> None:
    found = body["format"]
    demand(type(found) is int and found >= 1)
    if found < FORMAT:
        raise _too_old(found)
    if found > FORMAT:
        raise _too_new(found)
    demand(seconds(str(body["time"])) >= 0)
    demand(is_hex(body["public_key"], 64) and is_hex(body["officer"], 64))
    book.site, book.public_hex = str(body["site"]), str(body["public_key"])
    book.decisions.officer = str(body["officer"])


def _order(book: Pages, entry: Entry, body: Body) -> None:
    order = Order.of(body["order"], body["signature"])
    time = str(body["time"])
    book.decisions.demand_admissible(order, book.site)
    if order.say == "budget":
        budget = budgets.ordered(order)
        book.accounts.put(budget, book.grants.values(), time)
    elif order.say == "withdraw":
        book.accounts.withdraw(str(order.content["name"]))
    elif order.say == "gap":
        _acknowledge(book, order, time)
    book.decisions.admit(order, entry.seq, time)


def _acknowledge(book: Pages, order: Order, time: str) -> None:
    """Charge what was lost, and number on from what the server remembers."""
    terms = order.content
    name, server = str(terms["budget"]), str(terms["server"])
    demand(name in book.accounts.budgets)
    lost = (float(terms["epsilon"]), float(terms["delta"]))
    book.accounts.charge_gap(name, *lost, time)
    told, head_no = book.heads.setdefault(server, []), int(terms["head_no"])
    for number in range(len(told) + 1, head_no + 1):
        told.append(Head(server, number, "", 0, 0, ""))
    told[head_no - 1] = replace(told[head_no - 1], commitment=str(terms["commitment"]))


def _too_old(found: int) -> IntegrityError:
    return IntegrityError(
        "GLD-I060",
        f"the ledger has format {found}; this Guilder reads format {FORMAT}",
        why="Before format 2 no officer signed what a site may spend.",
        fix="Keep it with the Guilder that wrote it; begin anew with the officer.",
    )


def _too_new(found: int) -> IntegrityError:
    return IntegrityError(
        "GLD-I061",
        f"the ledger has format {found}; this Guilder reads format {FORMAT}",
        why="A newer Guilder wrote it, and an older one could misread a charge.",
        fix="Install the Guilder that wrote it, or a newer one.",
    )


LEARN: dict[str, Callable[[Pages, Entry, Body], None]] = {
    "ledger": _begin,
    "order": _order,
}
