"""Who decided: the officer's key, the orders in a ledger, and each study's permission.

Computed from a replayed book alone; decides nothing.
"""

import hashlib
from typing import Any

from guilder_shared.privacy.ledger.book import Book
from guilder_shared.privacy.ledger.decisions import Admitted
from guilder_shared.privacy.ledger.grants import Grant

Report = dict[str, Any]


def officer(book: Book) -> Report:
    """The key whose orders count now, and its fingerprint for people to compare."""
    public_hex = book.decisions.officer
    return {"public_key": public_hex, "fingerprint": fingerprint(public_hex)}


def fingerprint(public_hex: str) -> str:
    """SHA-256 of a public key, its first 16 digits in fours: ab12 cd34 ef56 7890."""
    try:
        digest = hashlib.sha256(bytes.fromhex(public_hex)).hexdigest()
    except ValueError:
        return ""
    return " ".join(digest[i : i + 4] for i in range(0, 16, 4))


def orders(book: Book) -> list[Report]:
    """Every order admitted, oldest first."""
    return [
        _order(book, admitted)
        for admitted in sorted(book.decisions.admitted.values(), key=lambda a: a.seq)
    ]


def approval(book: Book, grant: Grant) -> Report:
    """The order that permits a study."""
    found = book.decisions.admitted[grant.approval]
    line = _order(book, found)
    return {**line, "officer": fingerprint(found.public_hex)}


def _order(book: Book, admitted: Admitted) -> Report:
    order = admitted.order
    terms = order.content
    name = terms.get("study_name") if order.say == "approve" else order.subject[1]
    return {
        "order_id": order.order_id,
        "say": order.say,
        "name": str(name),
        "entry": admitted.seq,
        "admitted_at": admitted.time,
        "issued": str(terms["issued"]),
        "expires": order.expires,
        "revoked_at": book.decisions.revoked.get(order.order_id),
    }
