"""What a ledger says, asked by those who hold it: all that writes nothing.

`writer.py` adds what writes. It decides nothing and knows no file.

The mathematics: none. Crash order: reads only; an answer holds what is durable, for a
book learns an entry after the journal made it so.
"""

from guilder_shared.chain import Entry
from guilder_shared.orders import Order
from guilder_shared.privacy.ledger.budgets import Budget
from guilder_shared.privacy.ledger.decisions import Admitted, PublicSize
from guilder_shared.privacy.ledger.grants import Grant
from guilder_shared.privacy.ledger.heads import Head
from guilder_shared.privacy.ledger.pages import Exclusion
from guilder_shared.privacy.ledger.pen import Pen
from guilder_shared.privacy.ledger.totals import Totals, totals
from guilder_shared.privacy.ledger.witnesses import Witness, witnesses


class Readings:
    """One site's ledger, to be asked. Safe to use from several threads."""

    def __init__(self, pen: Pen) -> None:
        self._pen = pen

    @property
    def site(self) -> str:
        """The name of the site it belongs to."""
        return self._pen.book.site

    @property
    def officer(self) -> str:
        """The officer's public key in force, hexadecimal."""
        return self._pen.book.decisions.officer

    def cohort_of(self, grant_id: str) -> str | None:
        """The commitment to the rows a grant began with; None before its first turn."""
        with self._pen.lock:
            return self._pen.book.cohorts.get(grant_id)

    def exclusions(self) -> dict[str, Exclusion]:
        """The newest word on each dataset's list, by dataset."""
        with self._pen.lock:
            return dict(self._pen.book.exclusions)

    def find(self, grant_id: str) -> Grant | None:
        """The grant with this id, as it stands now; None if there is none."""
        with self._pen.lock:
            grant = self._pen.book.grants.get(grant_id)
            return None if grant is None else grant.snapshot()

    def grants(self) -> list[Grant]:
        """All grants, oldest first, as they stand now."""
        with self._pen.lock:
            return [grant.snapshot() for grant in self._pen.book.grants.values()]

    def totals(self) -> dict[str, Totals]:
        """Each budget's figures, by name."""
        with self._pen.lock:
            book = self._pen.book
            return {name: totals(book, name) for name in book.budgets}

    def budgets(self) -> dict[str, Budget]:
        """The budgets in force, by name."""
        with self._pen.lock:
            return dict(self._pen.book.budgets)

    def sizes(self) -> dict[str, PublicSize]:
        """The public sizes that the officer signed, by dataset."""
        with self._pen.lock:
            return dict(self._pen.book.decisions.sizes)

    def permissions(self) -> list[Admitted]:
        """Approvals and standing rules that permit studies now, oldest first."""
        with self._pen.lock:
            return self._pen.book.decisions.in_force(self._pen.now())

    def order(self, order_id: str) -> Order | None:
        """The order with this id, in force or not; None if it was never admitted."""
        with self._pen.lock:
            admitted = self._pen.book.decisions.admitted.get(order_id)
            return None if admitted is None else admitted.order

    def heads(self, server: str) -> list[Head]:
        """What this site's sealed turns committed it to towards one server."""
        with self._pen.lock:
            return list(self._pen.book.heads.get(server, []))

    def witnesses(self) -> dict[str, Witness]:
        """The servers that remember something of this ledger, by name."""
        with self._pen.lock:
            return witnesses(self._pen.book, self._pen.now())

    def entries(self) -> list[Entry]:
        """All entries, oldest first."""
        return list(self._pen.journal.entries())

    def sign(self, data: bytes) -> bytes:
        """Sign a report with the site's key; 64 bytes."""
        return self._pen.key.sign(data)
