"""One upload at a time, so that eight large replies never lie in memory together.

Uploads that fit into `budget_bytes` together go side by side; a larger one goes
alone. This module knows sizes and clocks, nothing of HTTP or Flower.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

IDLE_S = 20.0  # an upload that stands still this long is given up
SLOWEST_BYTES_PER_S = 32 * 1024  # and so is one slower than this on average
SLACK_BYTES = 256 * 1024  # envelopes around what was announced


class UploadSizeError(Exception):
    """More bytes came than the limit, or than were announced."""


@dataclass
class _Hold:
    message_id: str
    num_bytes: int
    began_s: float
    moved_s: float
    received_bytes: int = 0
    whole: bool = False  # all is here; waits to be folded
    rest: object = None  # what is here of a reply that broke off
    yields: bool = False  # it stood still: whoever asks takes its room


def _is_idle(hold: _Hold, now: float) -> bool:
    """Whether what broke off waits for its sender longer than others should."""
    broke_off = hold.rest is not None and now - hold.moved_s > IDLE_S
    return hold.yields or broke_off


def _sum(holds: Mapping[str, _Hold]) -> int:
    return sum(hold.num_bytes for hold in holds.values())


class UploadGate:
    """Who may upload now.

    A hold is taken when a reply is announced and given back when the reply is
    folded, when nothing of it is wanted, or when it is dropped. A caller that finds the
    gate taken is told so at once and comes again: nobody waits inside a request.

    What came of a reply that broke off is kept in its hold, so that its sender goes on
    from there: for 20 s it holds up others as an upload that stands still does, and
    afterwards until somebody else wants the room.

    Args:
        budget_bytes: What may be on its way or waiting to be folded together.
        largest_bytes: No single upload may announce more.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        budget_bytes: int,
        largest_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget_bytes = budget_bytes
        self._largest_bytes = largest_bytes
        self._clock = clock
        self._holds: dict[str, _Hold] = {}  # by site: a site sends one reply at a time
        self._lock = threading.Lock()

    def enter(self, site: str, message_id: str, num_bytes: int | None) -> bool:
        """Ask to upload a reply; False means: taken, come again.

        Args:
            site: Who asks. A new reply takes the place of its earlier one.
            message_id: The reply.
            num_bytes: What it will send; None if it does not say, which is taken
                for the largest there may be.

        Raises:
            UploadSizeError: It announces more than one upload may be.
        """
        if num_bytes is not None and num_bytes > self._largest_bytes:
            raise UploadSizeError
        size = self._largest_bytes if num_bytes is None else num_bytes
        with self._lock:
            now = self._clock()
            others = {s: h for s, h in self._holds.items() if s != site}
            busy = {s: h for s, h in others.items() if not _is_idle(h, now)}
            if busy and _sum(busy) + size > self._budget_bytes:
                return False
            own = self._holds.get(site)
            hold = _Hold(message_id, size, began_s=now, moved_s=now)
            if own is not None and own.rest is not None:
                hold.rest, hold.received_bytes = own.rest, own.received_bytes
                hold.began_s = own.began_s + now - own.moved_s
            fits = _sum(others) + size <= self._budget_bytes
            self._holds = (others if fits else busy) | {site: hold}
            return True

    def keep(self, message_id: str, rest: object, num_bytes: int) -> bool:
        """Keep what came of a reply that broke off; False if it holds no room.

        Args:
            message_id: The reply.
            rest: What is here of it; given back by `take_rest`.
            num_bytes: And its size.
        """
        with self._lock:
            for hold in self._holds.values():
                if hold.message_id == message_id:
                    hold.rest, hold.received_bytes = rest, num_bytes
                    hold.moved_s = self._clock()
                    return True
            return False

    def take_rest(self, site: str) -> object:
        """What is here already of what a site sends now; None if nothing is."""
        with self._lock:
            hold = self._holds.get(site)
            rest = None if hold is None else hold.rest
            if hold is not None:
                hold.rest = None
            return rest

    def received(self, site: str, num_bytes: int) -> None:
        """Count bytes of a site's upload as they come in.

        Raises:
            UploadSizeError: The site holds nothing, or sends more than it announced.
        """
        with self._lock:
            hold = self._holds.get(site)
            if hold is None:
                raise UploadSizeError
            hold.received_bytes += num_bytes
            hold.moved_s = self._clock()
            if hold.received_bytes > hold.num_bytes + SLACK_BYTES:
                raise UploadSizeError

    def complete(self, message_id: str) -> None:
        """Note that all of a reply is here; it keeps its room until `leave`."""
        with self._lock:
            for hold in self._holds.values():
                if hold.message_id == message_id:
                    hold.whole = True

    def leave(self, message_id: str) -> None:
        """Give back the room of a reply; nothing happens if it holds none."""
        with self._lock:
            self._holds = {
                site: hold
                for site, hold in self._holds.items()
                if hold.message_id != message_id
            }

    def give_way(self, message_id: str) -> None:
        """Let whoever asks have the room of a reply whose sender stands still."""
        with self._lock:
            for hold in self._holds.values():
                if hold.message_id == message_id:
                    hold.yields = True

    def stalled(self) -> list[str]:
        """Name the replies whose senders stand still; they keep their room."""
        now = self._clock()
        with self._lock:
            return [
                hold.message_id
                for hold in self._holds.values()
                if not (hold.whole or hold.yields or hold.rest is not None)
                and (
                    now - hold.moved_s > IDLE_S
                    or now - hold.began_s
                    > IDLE_S + hold.received_bytes / SLOWEST_BYTES_PER_S
                )
            ]
