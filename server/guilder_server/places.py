"""The queue of runs: which one is next, and which gave its place up for a while.

One run works at a time. First come is first served, by the moment from which a run
wants its place, so a run that rests again and again starves nobody and is not starved.
It knows no study; after a stop it is built anew from the run folders.
"""

import threading
import time
from collections.abc import Callable


class Places:
    """Run ids, each once, with the moment from which it may be taken.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._due: dict[str, float] = {}  # insertion order settles ties
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return len(self._due)

    def put(self, run_id: str, rest_s: float = 0.0) -> None:
        """Let a run wait for its place; one that waits already begins anew.

        Args:
            run_id: The run.
            rest_s: For so long it does not want its place.
        """
        with self._changed:
            self._due.pop(run_id, None)
            self._due[run_id] = self._clock() + rest_s
            self._changed.notify_all()

    def take(self) -> str | None:
        """The run that has wanted its place longest; waits for one. None: closed."""
        with self._changed:
            while not self._closed:
                run_id = min(self._due, key=self._due.__getitem__, default=None)
                left_s = 0.0 if run_id is None else self._due[run_id] - self._clock()
                if run_id is not None and left_s <= 0:
                    del self._due[run_id]
                    return run_id
                self._changed.wait(None if run_id is None else left_s)
            return None

    def is_wanted(self) -> bool:
        """Whether a run would be taken now: the one that works may give way to it."""
        with self._changed:
            now = self._clock()
            return any(due <= now for due in self._due.values())

    def close(self) -> None:
        """Give out no place any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
