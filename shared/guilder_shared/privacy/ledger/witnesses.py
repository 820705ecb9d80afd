"""Which servers can say whether a ledger is the newest, and which of them must.

Reads a ledger's pages, and states what a server forgot; asks nobody.

The mathematics: none. Crash order: a `seal` that counts here is durable before its
result, and so before any server can remember it; a `forgot` entry is durable before
the site goes on to spend.
"""

from dataclasses import dataclass

from guilder_shared.privacy.ledger.heads import Head, Word
from guilder_shared.privacy.ledger.pages import Pages
from guilder_shared.privacy.ledger.pen import Pen


@dataclass(frozen=True)
class Witness:
    """One server that the ledger says something about.

    Attributes:
        server: Its name in the ledger: the address under which it was first known.
        heads: What this site's sealed turns committed it to towards the server.
        word: What the server itself signed for last; None if it never did.
        excused: The officer lets the site spend without asking it.
    """

    server: str
    heads: tuple[Head, ...]
    word: Word | None
    excused: bool


def witnesses(pages: Pages, time: str) -> dict[str, Witness]:
    """Every server that was sent a result, or is excused, by name.

    Args:
        pages: Of the ledger.
        time: Now, as entries tell it.
    """
    excused = pages.decisions.excused(time)
    return {
        server: Witness(
            server,
            tuple(pages.heads.get(server, ())),
            pages.words.get(server),
            server in excused,
        )
        for server in sorted({*pages.heads, *excused})
    }


def forgot(pen: Pen, server: str, remembers: int) -> bool:
    """State that a server remembers less than it signed for; see `Ledger.forgot`."""
    with pen.writing() as book:
        word = book.words.get(server)
        if word is None or remembers >= word.head_no:
            return False
        if book.has_forgotten(server, word.head_no):
            return False
        told = {"server": server, "head_no": word.head_no, "remembers": remembers}
        pen.write("forgot", told)
        return True
