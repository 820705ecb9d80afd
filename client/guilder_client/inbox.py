"""The drop box of a site: where the officer's orders arrive as files.

Whoever can write here can only bring orders; whether one counts is the ledger's to
say, by the officer's signature. Nothing is deleted and nothing is sent.
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from guilder_shared.errors import BudgetSpent
from guilder_shared.orders import MOST_BYTES, Order

log = logging.getLogger(__name__)


@dataclass
class Inbox:
    """A folder of order files; each file is read once, and again if it changes."""

    folder: Path
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def new(self) -> list[Order]:
        """Orders not read yet, oldest first; a file that is none is told in the log."""
        found = [order for path in self._changed() if (order := _read(path))]
        return sorted(found, key=lambda order: order.serial)

    def _changed(self) -> list[Path]:
        try:
            entries = [e for e in os.scandir(self.folder) if e.name.endswith(".json")]
        except OSError:
            return []
        changed = []
        for entry in entries:
            try:
                status = entry.stat()
            except OSError:
                continue
            mark = (status.st_mtime_ns, status.st_size)
            if self._seen.get(entry.name) != mark:
                self._seen[entry.name] = mark
                changed.append(Path(entry.path))
        return changed


def _read(path: Path) -> Order | None:
    try:
        with path.open("rb") as file:
            return Order.parse(file.read(MOST_BYTES + 1))
    except OSError as error:
        log.error("order %s cannot be read: %s", path.name, error.strerror)
    except BudgetSpent as error:
        log.error("order %s left out: %s", path.name, error)
    return None
