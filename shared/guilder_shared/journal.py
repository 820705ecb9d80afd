"""An append-only book of signed entries, each bound to the one before it.

An entry is durable when `append` returns; nothing is ever changed or removed, and
any change made behind the journal's back is found when it is opened. This module
knows no study, no budget and no network. File format: `docs/ledger.md`.

Crash order: one entry is one SQLite transaction in WAL with synchronous=FULL, so
after kill -9 or a power cut an entry is there whole or not at all. What a chain
cannot show by itself: that its newest entries were cut off (see `docs/ledger.md`).
"""

import fcntl
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import rfc8785

from guilder_shared import anchors, durable, filesystems
from guilder_shared.chain import (
    GENESIS,
    Entry,
    check_chain,
    digest,
    end_bytes,
    signed_bytes,
)
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey

APPLICATION_ID = 0x474C4452  # "GLDR", in the file's header
KIND = re.compile(r"[a-z][a-z-]{0,31}")
SCHEMA = """
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY CHECK (seq > 0),
    kind TEXT NOT NULL,
    body BLOB NOT NULL,
    prev TEXT NOT NULL,
    hash TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT;
CREATE TRIGGER entries_never_change BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
CREATE TRIGGER entries_never_go BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are never removed'); END;
"""
INSERT = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)"
SELECT = "SELECT * FROM entries WHERE seq > ? ORDER BY seq"


class Journal:
    """One journal; one process at a time may write it, any number may read it.

    Safe to use from several threads. After a write that failed the object refuses
    every further write: what the disk holds is then only known by opening again.
    """

    def __init__(
        self, database: sqlite3.Connection, public_hex: str, key: SigningKey | None
    ) -> None:
        self._database = database
        self._key = key
        self._lock = threading.RLock()
        self._lock_file: int | None = None
        self._anchors: anchors.Anchors | None = None
        self._head: Entry | None = None
        self._trusted = True  # False while, and after, a write did not finish
        self.public_hex = public_hex

    @classmethod
    def open(cls, path: Path | None, key: SigningKey) -> Self:
        """Open for writing, make it if it is not there, and check every entry.

        Args:
            path: The file; its folder is made (mode 0700) if missing. None keeps
                the journal in memory, for simulated sites: durable it is not.
            key: Signs new entries, and must have signed all old ones.

        Raises:
            IntegrityError: Another process writes it (GLD-I006), the file cannot
                be opened (GLD-I004), is damaged (GLD-I002), has a second name
                (GLD-I101) or lost its newest entries (GLD-I103), the file system
                does not keep SQLite's promises (GLD-I015, GLD-I100), or an entry
                is not what was written (GLD-I001, GLD-I003).
        """
        if path is None:
            journal = cls(_connect(":memory:"), key.public_hex, key)
            _make_schema(journal._database)
            return journal
        lock_file = _prepare(path)
        try:
            journal = cls(_connect(_uri(path, "rw")), key.public_hex, key)
            journal._lock_file = lock_file
        except sqlite3.Error as error:
            os.close(lock_file)
            raise _cannot_open(path, str(error)) from None
        try:
            with _damage_as_integrity(path):
                _make_durable(journal._database, path)
                _make_schema(journal._database)
                journal.verify()
            durable.sync_folder(path.parent)
            journal._anchor(path, lock_file)
        except BaseException:
            journal.close()
            raise
        return journal

    @classmethod
    def read(cls, path: Path, public_hex: str) -> Self:
        """Open for reading, beside a process that may be writing, and check it.

        Raises:
            IntegrityError: As `open`, without GLD-I006 and GLD-I015.
        """
        try:
            journal = cls(_connect(_uri(path, "ro")), public_hex, None)
        except sqlite3.Error as error:
            raise _cannot_open(path, str(error)) from None
        try:
            with _damage_as_integrity(path):
                journal.verify()
        except BaseException:
            journal.close()
            raise
        return journal

    @property
    def head(self) -> Entry | None:
        """The newest entry; None in an empty journal."""
        return self._head

    def append(self, kind: str, body: dict[str, Any]) -> Entry:
        """Write one entry; it is durable when this returns.

        Args:
            kind: Small letters and hyphens, at most 32.
            body: A JSON object: no NaN, integers within ±2^53.

        Returns:
            The entry as it was written.

        Raises:
            IntegrityError: It could not be made durable (GLD-I005: a full or
                failing disk); nothing of it is in the journal that opens next,
                except after a failing disk, where it may be there whole. Or its
                file was moved or replaced since it was opened (GLD-I102).
        """
        with self._lock:
            if self._key is None or not self._trusted:
                raise IntegrityError(
                    "GLD-I005",
                    "the journal takes no entry: it was opened for reading, or an "
                    "earlier write failed",
                    fix="Make room on the disk if it is full, then start again.",
                )
            entry = self._next(kind, rfc8785.dumps(body), self._key)
            self._trusted = False
            if self._anchors is not None:
                self._anchors.demand_in_place()
            try:
                self._insert(entry)
            except sqlite3.Error as error:
                raise IntegrityError(
                    "GLD-I005",
                    f"entry {entry.seq} could not be made durable: {error}",
                    why="Nothing may leave the site that is not written here first.",
                    fix="Make room on the disk or replace it, then start again.",
                ) from None
            self._head = entry
            self._trusted = True
            if self._anchors is not None:
                self._anchors.note(entry)
            return entry

    def entries(self, *, after: int = 0) -> Iterator[Entry]:
        """All entries with a higher number than `after`, in order, as stored."""
        with self._lock:
            rows = self._database.execute(SELECT, (after,)).fetchall()
        return (Entry(*row) for row in rows)

    def sign_end(self, moment: str) -> tuple[Entry, str]:
        """The newest entry, and a signature that it was the newest at `moment`."""
        with self._lock:
            assert self._key is not None, "open for writing"
            assert self._head is not None, "nothing is exported of nothing"
            said = end_bytes(self._head.seq, self._head.hash, moment)
            return self._head, self._key.sign(said).hex()

    def verify(self) -> int:
        """Check every hash and every signature from the first entry on.

        Returns:
            The number of entries.

        Raises:
            IntegrityError: GLD-I001 or GLD-I003, naming the entry.
        """
        with self._lock:
            count = 0
            for entry in check_chain(self.entries(), self.public_hex):
                self._head = entry
                count = entry.seq
            return count

    def close(self) -> None:
        """Close the file and let another process write. Twice is harmless."""
        with self._lock:
            self._trusted = False
            self._database.close()
            if self._lock_file is not None:
                os.close(self._lock_file)  # gives the lock back
                self._lock_file = None

    def _next(self, kind: str, body: bytes, key: SigningKey) -> Entry:
        assert KIND.fullmatch(kind), kind
        seq, prev = (
            (self._head.seq + 1, self._head.hash) if self._head else (1, GENESIS)
        )
        entry_hash = digest(seq, kind, prev, body)
        signature = key.sign(signed_bytes(entry_hash)).hex()
        return Entry(seq, kind, body, prev, entry_hash, signature)

    def _anchor(self, path: Path, lock_file: int) -> None:
        """Compare with what the last writer noted, and watch the files from here on."""
        noted = anchors.noted(lock_file)
        if noted is not None:
            held = next(self.entries(after=noted[0] - 1), None)
            if held is None or (held.seq, held.hash) != noted:
                raise anchors.missing(
                    path, self._head.seq if self._head else 0, noted[0]
                )
        self._anchors = anchors.Anchors(path, lock_file)
        if self._head is not None:
            self._anchors.note(self._head)

    def _insert(self, entry: Entry) -> None:
        # One statement in autocommit is one transaction: written and synced, or not.
        row = (entry.seq, entry.kind, entry.body, entry.prev)
        self._database.execute(INSERT, (*row, entry.hash, entry.signature))


@contextmanager
def _damage_as_integrity(path: Path) -> Iterator[None]:
    """Turn what SQLite says about a broken file into an IntegrityError."""
    try:
        yield
    except (sqlite3.Error, ValueError, TypeError) as error:
        if isinstance(error, sqlite3.OperationalError) and _is_access(error):
            raise _cannot_open(path, str(error)) from None
        raise IntegrityError(
            "GLD-I002",
            f"{path} is damaged or is not a ledger: {error}",
            fix="Keep the file as evidence; restore a backup that verifies.",
        ) from None


def _is_access(error: sqlite3.OperationalError) -> bool:
    denied = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_FULL", "SQLITE_IOERR")
    return str(getattr(error, "sqlite_errorname", "")).startswith(denied)


def _cannot_open(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        "GLD-I004",
        f"{path} cannot be opened: {reason}",
        why="A site without a ledger it can write answers no turn.",
        fix="Check that folder and file belong to this user and the disk has room.",
    )


def _prepare(path: Path) -> int:
    """Make folder and file for the owner alone, and take the writer's lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        filesystems.demand_local(path.parent)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_file = os.open(path.with_name(path.name + ".lock"), flags, 0o600)
    except OSError as error:
        raise _cannot_open(path, error.strerror or "") from None
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Only with the lock held: closing a file drops SQLite's own locks on it.
        descriptor = os.open(path, flags, 0o600)
        try:
            anchors.demand_one_file(descriptor, path)
        finally:
            os.close(descriptor)
    except BlockingIOError:
        os.close(lock_file)
        raise IntegrityError(
            "GLD-I006",
            f"{path} is being written by another process",
            why="One ledger has one writer, or turns could be charged twice.",
            fix="Stop the other `guilder client`, or use another site folder.",
        ) from None
    except OSError as error:
        os.close(lock_file)
        raise _cannot_open(path, error.strerror or "") from None
    except IntegrityError:
        os.close(lock_file)
        raise
    return lock_file


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


def _connect(database: str) -> sqlite3.Connection:
    return sqlite3.connect(
        database, uri=True, isolation_level=None, check_same_thread=False, timeout=5
    )


def _make_durable(database: sqlite3.Connection, path: Path) -> None:
    """Ask for WAL and full syncs, and read back that they were granted."""
    (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
    database.execute("PRAGMA synchronous = FULL")
    (synchronous,) = database.execute("PRAGMA synchronous").fetchone()
    if (mode, synchronous) != ("wal", 2):
        raise IntegrityError(
            "GLD-I015",
            f"{path}: the file system grants journal_mode={mode}, "
            f"synchronous={synchronous}; wal and 2 are needed",
            fix="Set state_dir in site.toml to a folder on a local disk.",
        )


def _make_schema(database: sqlite3.Connection) -> None:
    (application_id,) = database.execute("PRAGMA application_id").fetchone()
    if application_id == APPLICATION_ID:
        return
    (num_tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application_id or num_tables:
        raise sqlite3.DatabaseError("the file belongs to another program")
    database.executescript(
        f"BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
    )
