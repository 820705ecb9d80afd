"""The small SQLite file of a run: its tables, how it is opened, how damage is told.

This module knows what lies where and nothing of what it means.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from guilder_shared.errors import IntegrityError

TABLES: Final = """
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS turns (
    round_no INTEGER, site TEXT, grant_id TEXT, turn_no INTEGER, dropped INTEGER,
    UNIQUE (grant_id, turn_no));
CREATE TABLE IF NOT EXISTS rounds (
    round_no INTEGER PRIMARY KEY, model_sha256 TEXT, receipts TEXT, metrics TEXT,
    time_s REAL);
CREATE TABLE IF NOT EXISTS measures (
    round_no INTEGER PRIMARY KEY, receipts TEXT, metrics TEXT, time_s REAL);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY, time_s REAL, kind TEXT, fields TEXT);
"""


def connect(path: Path) -> sqlite3.Connection:
    """The run's database, with its tables; one process at a time writes it."""
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.executescript(TABLES)
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def damage_as_integrity(path: Path) -> Iterator[None]:
    """Turn what SQLite says about a broken file into an IntegrityError."""
    try:
        yield
    except sqlite3.OperationalError:
        raise  # the disk's fault, not the file's
    except sqlite3.DatabaseError as error:
        raise IntegrityError(
            "GLD-I051",
            f"{path} is damaged: {error}",
            why="What was asked and committed cannot be told; it is not guessed.",
            fix="Restore the run's folder from a backup, or submit the study again.",
        ) from None
