"""The log of who belongs here: what is entered, and what its entries say.

One signed, hash-chained journal (`shared/journal.py`) is the only truth; the members
are what its entries say. What may be entered is `register.py`'s to decide.

Crash order: an entry is durable before the members change.
"""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from guilder_server.members import Members
from guilder_shared.chain import Entry
from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal

FILE: Final = "members.db"
SCHEMA: Final = "guilder-members-1"
END: Final = "end"  # kind of an export's last line, which is no entry


class Chronicle:
    """The log, open for writing; safe to use from many threads.

    Args:
        journal: Where entries lie.
        clock: Seconds since 1970.

    Attributes:
        lock: Held while something is looked up and entered, so that it still holds.
        members: Everybody, as the entries say.
    """

    def __init__(self, journal: Journal, clock: Callable[[], float]) -> None:
        self._journal, self._clock = journal, clock
        self.lock = threading.RLock()
        self.members = Members()
        for entry in journal.entries():
            self.members.apply(entry)

    @classmethod
    def open(
        cls, storage: Path, key: Path, pin: str, clock: Callable[[], float] = time.time
    ) -> Self:
        """Open the log in `storage`, make it if there is none, and check all of it.

        Args:
            storage: The server's folder.
            key: File of the key that signs the log.
            pin: Of the consortium, for the first entry.
            clock: As above.

        Raises:
            IntegrityError: The log was changed, or another process writes it.
            EnrolmentError: The key cannot be used.
        """
        signing = SigningKey.load(key)
        journal = Journal.open(storage / FILE, signing)
        log = cls(journal, clock)
        if journal.head is None:
            log.enter("opened", schema=SCHEMA, public_key=signing.public_hex, pin=pin)
        return log

    def enter(self, kind: str, **body: Any) -> None:
        """Write one entry; durable when this returns."""
        with self.lock:
            entry = self._journal.append(kind, {"time": self._moment(), **body})
            self.members.apply(entry)

    def now(self) -> float:
        """Seconds since 1970, by the one clock that counts."""
        return self._clock()

    def export(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Entries as JSON, and a last line that says, signed, that there are no more.

        So a file from which the newest entries were cut off shows it.
        """
        with self.lock:
            entries = list(self._journal.entries(after=after))
            moment = self._moment()
            newest, signature = self._journal.sign_end(moment)
        for entry in entries:
            yield {**vars(entry), "body": entry.content()}
        yield {
            "seq": newest.seq,
            "kind": END,
            "body": {"time": moment},
            "prev": newest.prev,
            "hash": newest.hash,
            "signature": signature,
        }

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """The entries."""
        return self._journal.entries(after=after)

    def close(self) -> None:
        """Close the file."""
        self._journal.close()

    def _moment(self) -> str:
        moment = datetime.fromtimestamp(int(self._clock()), UTC).isoformat()
        return moment.replace("+00:00", "Z")
