"""Replaying what servers forgot: `forgot` entries, for officers to see in reports.

A server that remembers less than it signed for would not notice an old copy of the
ledger until it has caught up. It writes nothing and decides nothing.

The mathematics: none; the entry frees nothing and charges nothing, and what is in it
the server itself had signed or said.
Crash order: durable before the site goes on to spend, so that a report tells of it.
"""

from collections.abc import Callable

from guilder_shared.chain import Entry
from guilder_shared.privacy.ledger.bodies import Body, demand
from guilder_shared.privacy.ledger.heads import Forgot
from guilder_shared.privacy.ledger.pages import Pages


def _learn(book: Pages, _: Entry, body: Body) -> None:
    server, head_no, remembers = body["server"], body["head_no"], body["remembers"]
    demand(type(head_no) is int and type(remembers) is int)
    demand(server in book.words and book.words[server].head_no == head_no)
    demand(0 <= remembers < head_no and not book.has_forgotten(server, head_no))
    book.forgot.append(Forgot(str(server), str(body["time"]), head_no, remembers))


LEARN: dict[str, Callable[[Pages, Entry, Body], None]] = {"forgot": _learn}
