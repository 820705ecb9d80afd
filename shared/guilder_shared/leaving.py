"""A resident process from its first signal to its end.

What counts is durable before it is relied on, so a process may leave at any moment;
this module only makes it leave soon, in order if there is time, and with an honest exit
code. It knows neither server nor site.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

GRACE_S: Final = 5.0  # for goodbyes; a turn that takes longer is gone on with later
LOOK_S: Final = 0.1
INTERRUPTED: Final = 130

log = logging.getLogger(__name__)


def serve_until_signalled(serve: Callable[[threading.Event], None]) -> None:
    """Run `serve(stop)` until it ends by itself, or SIGTERM or SIGINT comes.

    After a signal `stop` is set; the process ends when `serve` has returned, or after
    5 s, or at the next signal: with 0 after SIGTERM, with 130 after SIGINT. It must be
    called in the main thread.

    Raises:
        BaseException: What `serve` raised, before any signal.
    """
    caught: list[int] = []
    stop, raised = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            serve(stop)
        except BaseException as error:
            raised.append(error)

    # The handler only takes a note: an Event set inside it can wait for itself.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda which, _frame: caught.append(which))
    worker = threading.Thread(target=work, daemon=True, name="serve")
    worker.start()
    while worker.is_alive() and not caught:
        worker.join(LOOK_S)
    if caught:
        stop.set()
        _wait_for(worker, caught)
        _leave(INTERRUPTED if caught[0] == signal.SIGINT else 0)
    if raised:
        raise raised[0]


def _wait_for(worker: threading.Thread, caught: list[int]) -> None:
    for _ in range(int(GRACE_S / LOOK_S)):
        if not worker.is_alive() or len(caught) > 1:
            return
        worker.join(LOOK_S)
    log.warning("left in the middle of work; it is gone on with at the next start")


def _leave(code: int) -> NoReturn:
    """End at once: threads of ours may be deep in native code that cannot be asked."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
