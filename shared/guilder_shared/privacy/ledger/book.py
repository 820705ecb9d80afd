"""Everything the entries of a ledger say, replayed one by one.

The same entries give the same book, on the site that wrote them and on the auditor's
computer. It writes nothing, decides nothing about new studies and knows no file, key
or clock; an entry that cannot follow those before it is refused. What is learnt is
kept in `pages.py`; what each kind of entry does is in the modules that `kinds.py`
lists.

The mathematics: `accounts.py`. Crash order: the book learns an entry only after the
journal made it durable, so it never knows more than the disk.
"""

from guilder_shared.chain import Entry
from guilder_shared.errors import IntegrityError
from guilder_shared.privacy.ledger import kinds
from guilder_shared.privacy.ledger.bodies import (
    CANNOT_BE,
    ImpossibleError,
    demand,
    seconds,
)
from guilder_shared.privacy.ledger.pages import Pages


class Book(Pages):
    """What entries say, learnt one by one."""

    def apply(self, entry: Entry) -> None:
        """Learn one entry.

        Raises:
            IntegrityError: It is not the next one, or says what cannot be after
                those before it, such as a turn beyond the plan (GLD-I007); or the
                ledger has an older format (GLD-I060) or a newer one (GLD-I061).
        """
        try:
            learn, body = kinds.LEARN.get(entry.kind), entry.content()
            if entry.seq != self.seq + 1 or learn is None:
                raise ImpossibleError
            demand((entry.seq == 1) == (entry.kind == "ledger"))
            time = str(body.get("time"))
            if entry.kind != "ledger":  # whose format is looked at first
                demand(seconds(time) >= 0 and time >= self.time)
            learn(self, entry, body)
            self.time = time
        except CANNOT_BE:
            raise IntegrityError(
                "GLD-I007",
                f"entry {entry.seq} ({entry.kind}) cannot follow the entries before it",
                why="It is signed, but no correct Guilder of this format wrote it.",
                fix="Check that this Guilder is not older than the ledger.",
            ) from None
        self.seq = entry.seq
