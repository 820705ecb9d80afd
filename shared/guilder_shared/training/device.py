"""Where a turn computes, and on how many threads.

This module trains nothing. torch is imported when first needed.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from guilder_shared.errors import DeviceError

_lock = threading.Lock()
_inside = 0
_threads_before = 1


def choose(name: str = "cpu") -> str:
    """Check that this machine can train on the device that was asked for.

    Raises:
        DeviceError: GLD-G001, the device is unknown or not built in yet.
    """
    if name != "cpu":
        raise DeviceError(
            "GLD-G001",
            f"device {name!r} cannot train here.",
            why="This version trains on the processor only.",
            fix='Write device = "cpu" in site.toml.',
        )
    return name


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that bytes do not depend on the number of cores.

    torch's setting belongs to the process: it is restored when the last of several
    turns leaves, and turns may run in several threads.
    """
    import torch

    global _inside, _threads_before  # noqa: PLW0603 - the setting is torch's own global
    with _lock:
        if _inside == 0:
            _threads_before = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                torch.set_num_threads(_threads_before)
