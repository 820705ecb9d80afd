"""Servers that would not have noticed an old ledger: excused, or without their memory.

The officer must find them in a report, for an old copy could have been put back then.
Computed from a replayed book alone; decides nothing.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from guilder_shared.privacy.ledger.book import Book

Report = dict[str, Any]


def silences(book: Book) -> list[Report]:
    """Each server that an officer ever excused or that ever forgot, by name.

    Returns:
        Objects with `server`; `excused`, each with `order_id`, `since`, `expires` and
        `revoked_at` (None where there is none); and `forgot`, each with `at`, `signed`
        and `remembered`, which are numbers of the ledger's heads (0: none).
    """
    excuses: dict[str, list[Report]] = {}
    for admitted in book.decisions.admitted.values():
        order = admitted.order
        if order.say == "excuse":
            line: Report = {
                "order_id": order.order_id,
                "since": admitted.time,
                "expires": order.expires,
                "revoked_at": book.decisions.revoked.get(order.order_id),
            }
            excuses.setdefault(str(order.content["server"]), []).append(line)
    lost: dict[str, list[Report]] = {}
    for forgot in book.forgot:
        line = {
            "at": forgot.time,
            "signed": forgot.head_no,
            "remembered": forgot.remembers,
        }
        lost.setdefault(forgot.server, []).append(line)
    return [
        {
            "server": server,
            "excused": excuses.get(server, []),
            "forgot": lost.get(server, []),
        }
        for server in sorted({*excuses, *lost})
    ]


def lines(told: Iterable[Report]) -> Iterator[str]:
    """What `silences` gave, a line for each time."""
    for each in told:
        for excuse in each["excused"]:
            ends = [end for end in (excuse["expires"], excuse["revoked_at"]) if end]
            until = min(ends, default="it is revoked")
            yield (
                f"{each['server']}: EXCUSED from {excuse['since']} until {until}; an "
                "old ledger put back in that time would not have shown there"
            )
        for lost in each["forgot"]:
            yield (
                f"{each['server']}: FORGOT; it had signed for head {lost['signed']} "
                f"and remembered {lost['remembered'] or 'nothing'} at {lost['at']}"
            )
