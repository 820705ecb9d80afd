"""Whether the files that a writer opened are still the ones under their names.

Beside a journal lies its lock file; it holds the number and hash of the newest entry
too. So a file that was swapped, or lost its newest entries, is noticed on the spot: a
slip with a back-up, a deleted write-ahead log. Who puts all files of an old copy back
is not noticed here; servers' memories are for that. This module knows no entry's
meaning.

The mathematics: none. Crash order: the note is written after its entry is durable, so
it never says more than the journal held. It is not synced: after a power cut it may
say less.
"""

import contextlib
import os
import stat
from pathlib import Path

from guilder_shared.chain import Entry
from guilder_shared.errors import IntegrityError

FIX = "Keep what is there as evidence; put the newest copy of the whole folder back."
SAVED = "-wal"  # the write-ahead log: the newest entries, until a clean close


class Anchors:
    """The files of one journal that is open for writing.

    Args:
        path: The journal's file.
        lock_file: Descriptor of its lock file; belongs to the caller.
    """

    def __init__(self, path: Path, lock_file: int) -> None:
        self._path = path
        self._lock_file = lock_file
        names = (path.name, path.name + SAVED, path.name + ".lock")
        self._found = {path.with_name(n): _place(path.with_name(n)) for n in names}

    def demand_in_place(self) -> None:
        """Raise unless each file that was opened still lies under its name.

        Raises:
            IntegrityError: One was moved, removed or replaced (GLD-I102).
        """
        for path, place in self._found.items():
            if _place(path) != place:
                raise IntegrityError(
                    "GLD-I102",
                    f"{path} is no longer the file that was opened",
                    why="It was moved, removed or replaced under the running client; "
                    "what is written now would be lost with the next start.",
                    fix=f"Stop the client. {FIX}",
                )

    def note(self, entry: Entry) -> None:
        """Remember the newest entry, which is durable. A disk that fails is let be."""
        with contextlib.suppress(OSError):
            text = f"{entry.seq:020d} {entry.hash}\n"
            os.pwrite(self._lock_file, text.encode(), 0)


def demand_one_file(descriptor: int, path: Path) -> None:
    """Raise unless an open file is an ordinary one with no other name.

    Raises:
        IntegrityError: It is a pipe or a device, or has a second name (GLD-I101).
    """
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return
    raise IntegrityError(
        "GLD-I101",
        f"{path} is not one file with one name ({found.st_nlink} hard links)",
        why="Under its other name a second process could write it unseen.",
        fix=f"`find / -inum {found.st_ino}` names all; leave one, in one folder.",
    )


def noted(lock_file: int) -> tuple[int, str] | None:
    """Number and hash of the newest entry, as the last writer left them; or None."""
    number, _, entry_hash = os.pread(lock_file, 100, 0).strip().partition(b" ")
    if not number.isdigit():
        return None
    return int(number), entry_hash.decode("ascii", "replace")


def missing(path: Path, held: int, noted_no: int) -> IntegrityError:
    """A journal that does not hold what it held (GLD-I103)."""
    return IntegrityError(
        "GLD-I103",
        f"{path} has {held} entries and not the entry {noted_no} that it held",
        why="An old copy was put in its place, or ledger.db-wal was removed: charges "
        "are missing.",
        fix=f"{FIX} If there is none: docs/site-engineer.md, 'After a loss'.",
    )


def _place(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
