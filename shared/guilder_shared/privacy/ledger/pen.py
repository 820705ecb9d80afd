"""The one hand that writes a ledger: journal, key, clock and book, held together.

Everything a `Ledger` decides goes through here to the disk and back into the book. It
decides nothing itself.

The mathematics: none. An entry's time is the later of the clock's and the newest
entry's, in whole seconds, so that a clock set back revives no expired order and no
past period. Crash order: the journal makes an entry durable, then the book learns it;
what an interrupted write left between the two is learnt before the next decision.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal
from guilder_shared.privacy.ledger import refusals
from guilder_shared.privacy.ledger.bodies import Body, seconds, stamp
from guilder_shared.privacy.ledger.book import Book
from guilder_shared.privacy.ledger.grants import Grant

log = logging.getLogger(__name__)
CLOCK_SLACK_S = 300  # seconds a clock may be behind the ledger before it is said


class Pen:
    """Writes entries and keeps the book in step with them.

    Attributes:
        journal: Durable; the truth.
        key: The site's.
        clock: Seconds since 1970.
        book: What the journal's entries say.
        refused: What was refused, as `refusals.without_time` gives it.
        lock: Held from a decision to the end of its entry.
    """

    def __init__(
        self, journal: Journal, key: SigningKey, clock: Callable[[], float]
    ) -> None:
        self.journal = journal
        self.key = key
        self.clock = clock
        self.book = Book()
        self.refused: set[bytes] = set()
        self.lock = threading.RLock()
        self._told_of_clock = False

    @contextmanager
    def writing(self) -> Iterator[Book]:
        """Hold the lock; the book knows all that the disk knows."""
        with self.lock:
            self.learn()
            yield self.book

    def learn(self) -> None:
        """Let the book learn what the journal has beyond it."""
        head = self.journal.head
        if head is None or head.seq == self.book.seq:
            return
        for entry in self.journal.entries(after=self.book.seq):
            self.book.apply(entry)
            if entry.kind == "refuse":
                self.refused.add(refusals.without_time(entry.content()))

    def now(self) -> str:
        """The time of an entry that would be written now; never runs backwards."""
        clock = stamp(self.clock())
        if clock >= self.book.time:
            return clock
        behind_s = seconds(self.book.time) - seconds(clock)
        if behind_s > CLOCK_SLACK_S and not self._told_of_clock:
            self._told_of_clock = True
            log.warning(
                "the clock is %s s behind the newest entry of the ledger (%s): entries "
                "keep that time until the clock has caught up; set the clock",
                behind_s,
                self.book.time,
            )
        return self.book.time

    def write(self, kind: str, body: Body, *, time: str | None = None) -> None:
        """Write one entry; durable when this returns.

        Args:
            kind: One of `kinds.LEARN`.
            body: Without its time.
            time: From `now`, where a decision was taken at it.

        Raises:
            IntegrityError: It could not be made durable (GLD-I005).
        """
        self.journal.append(kind, {**body, "time": time or self.now()})
        self.learn()

    def grant(self, grant_id: str) -> Grant:
        """The grant with this id.

        Raises:
            BudgetSpent: There is none (GLD-B002).
        """
        grant = self.book.grants.get(grant_id)
        if grant is None:
            raise refusals.unknown_grant(self.book.site, grant_id)
        return grant
