"""The log of who belongs here: what is entered, and what its entries say.

One signed, hash-chained journal (`shared/journal.py`) is the only truth; the members
are what its entries say. What may be entered is `register.py`'s to decide. Where the
journal speaks of a site's ledger, the operator is told of the log instead.

Crash order: an entry is durable before the members change.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from guilder_server.members import Members
from guilder_shared.chain import Entry
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal

FILE: Final = "members.db"
SCHEMA: Final = "guilder-members-1"
END: Final = "end"  # kind of an export's last line, which is no entry
BACK: Final = (
    "Put the newest copy of members.db, members.db-wal and members.db.lock back; if "
    "there is none: docs/backup.md, 'The server'."
)
LOCAL: Final = "Set storage under [server] in server.toml to a folder on a local disk."
WORDS: Final = {  # error of the journal -> why and fix, where a ledger has others
    "GLD-I003": (
        "It was forged, or log.key is another log's.",
        "Put log.key and the members.db that it signed together.",
    ),
    "GLD-I004": (
        "A server that cannot write who belongs here lets nobody in.",
        "Check that folder and file belong to this user and the disk has room.",
    ),
    "GLD-I005": (
        "No decision about members counts that is not written here first.",
        "Make room on the disk or replace it, then start the server again.",
    ),
    "GLD-I006": (
        "One log has one writer.",
        "Stop the other `guilder server`, or set another storage in server.toml.",
    ),
    "GLD-I015": ("", LOCAL),
    "GLD-I100": (
        "Locks and syncs there may not hold: a decision could be lost.",
        LOCAL,
    ),
    "GLD-I102": (
        "It was moved, removed or replaced under the running server; what is written "
        "now would be lost with the next start.",
        f"Stop the server. {BACK}",
    ),
    "GLD-I103": (
        "An old copy was put in its place, or members.db-wal was removed: decisions "
        "are missing, and who was shut out since would be let in again.",
        BACK,
    ),
}


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
        with _as_of_members():
            journal = Journal.open(storage / FILE, signing)
        log = cls(journal, clock)
        if journal.head is None:
            log.enter("opened", schema=SCHEMA, public_key=signing.public_hex, pin=pin)
        return log

    def enter(self, kind: str, **body: Any) -> None:
        """Write one entry; durable when this returns."""
        with self.lock, _as_of_members():
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


def demand_there(storage: Path) -> None:
    """Raise unless a log is there: where it was lost, none is begun in its place.

    Raises:
        IntegrityError: GLD-I103.
    """
    path = storage / FILE
    if not path.exists():
        raise IntegrityError(
            "GLD-I103",
            f"{path} is not there, the log of who belongs here that `init` began",
            why="A new log would know nobody: no site or person would be let in.",
            fix=BACK,
        )


@contextlib.contextmanager
def _as_of_members() -> Iterator[None]:
    """The journal's errors in the words of those who keep this log, not a ledger."""
    try:
        yield
    except IntegrityError as error:
        if error.error_id not in WORDS:
            raise
        why, fix = WORDS[error.error_id]
        raise IntegrityError(error.error_id, error.what, why=why, fix=fix) from None
