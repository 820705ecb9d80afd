"""When each site was last heard of: a moment for people, on which nothing depends.

Kept in one file, written about once a minute and at the end; a server that was killed
knows the moments of a minute ago. It decides nothing about who is online.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

from guilder_shared import durable

log = logging.getLogger(__name__)
FILE: Final = "sightings.json"
SAVE_EVERY_S: Final = 60.0


class Sightings:
    """Moments by site; safe to use from several threads.

    Args:
        path: The file; None keeps them in memory.
        clock: Seconds since 1970.
    """

    def __init__(
        self, path: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._seen = _read(path)
        self._is_saved = True

    @classmethod
    def open(cls, storage: Path) -> Self:
        """Those of a server; a file that cannot be read is begun anew."""
        return cls(storage / FILE)

    def note(self, site: str) -> None:
        """A site was heard of just now."""
        with self._lock:
            self._seen[site] = self._clock()
            self._is_saved = False

    def all(self) -> Mapping[str, float]:
        """Seconds since 1970, by site."""
        with self._lock:
            return dict(self._seen)

    def save(self) -> None:
        """Write what is new; a disk that refuses is told in the log alone."""
        with self._lock:
            if self._is_saved or self._path is None:
                return
            text = json.dumps(self._seen, sort_keys=True)
            self._is_saved = True
        try:
            durable.write(self._path, text.encode())
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error.strerror)

    def keep(self, stop: threading.Event) -> None:
        """Save now and then, until `stop`."""
        while not stop.wait(SAVE_EVERY_S):
            self.save()


def _read(path: Path | None) -> dict[str, float]:
    try:
        raw = {} if path is None else json.loads(path.read_bytes())
        return {str(site): float(moment) for site, moment in raw.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError):
        log.warning("%s is damaged; it is begun anew", path)
        return {}
