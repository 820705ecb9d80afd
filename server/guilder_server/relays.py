"""The connections that one port relays: whose they are, and how many of one may be.

A caller is unknown until it has made a call with a member's certificate; the control
channel then says whose its connection is. So nobody without a certificate, and no
single member, can take the places of the others. It holds no socket and reads no byte.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

MOST_UNKNOWN: Final = 256  # to each other listener; the oldest goes for a new one
MOST_OF_ONE: Final = 16  # of a member; its own oldest goes for a new one
Address = tuple[str, int]


@dataclass
class _Line:
    cut: Callable[[], None]
    name: str = ""  # of the member; empty while unknown


class Relays:
    """Lines by listener, and by the port of ours from which they reach it.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[Address, dict[int, _Line]] = {}  # oldest first

    def enter(self, listener: Address, port: int, task: "asyncio.Task[Any]") -> None:
        """A line is up, to `listener`, from this port of ours; `task` carries it."""
        loop = task.get_loop()

        def cut() -> None:
            loop.call_soon_threadsafe(task.cancel)

        with self._lock:
            lines = self._lines.setdefault(listener, {})
            lines[port] = _Line(cut)
            unknown = [each for each in lines.values() if not each.name]
        for line in unknown[:-MOST_UNKNOWN]:
            line.cut()

    def leave(self, listener: Address, port: int) -> None:
        """A line is down."""
        with self._lock:
            self._lines[listener].pop(port, None)

    def known(self, listener: Address, peer: str, name: str) -> None:
        """A member called on the line that comes from `peer`, as gRPC names it."""
        digits = peer.rpartition(":")[2]
        with self._lock:
            lines = self._lines.get(listener, {})
            line = lines.get(int(digits) if digits.isdecimal() else -1)
            if line is None or line.name == name:
                return
            line.name = name
            own = [each for each in lines.values() if each.name == name]
        for each in own[:-MOST_OF_ONE]:
            each.cut()
