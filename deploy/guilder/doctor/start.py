"""What is looked at each time before a client starts: what it would fail of anyway.

Files of this machine alone, well under a second: keys and certificate, room to write,
the clock as far as it can be judged here, the proxy's password, what is installed. The
ledger is not here, for opening it is the client's first act and refuses by itself; nor
is the network, which may come later. `site.py` has the whole check.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from guilder.doctor import hops, keys, machine, versions
from guilder.doctor.finding import Finding, of, warning
from guilder_client.settings import SiteFile
from guilder_shared import tls
from guilder_shared.errors import GuilderError

BEHIND_S: Final = 300.0  # a clock that was put back by less is as good as right
GRAVE: Final = frozenset({"keys"})  # parts without which nothing could be done
FULL: Final = "GLD-M002"  # and a disk that takes nothing


def check(settings: SiteFile) -> list[Finding]:
    """Look at what stops a client ("wrong"), and what will one day ("warning")."""
    return [
        replace(each, state="warning", exit_code=0)
        if each.state == "wrong" and each.part not in GRAVE and each.id != FULL
        else each
        for each in _look(settings)
        if each.state in ("wrong", "warning")
    ]


def _look(settings: SiteFile) -> Iterator[Finding]:
    mine, state = settings.keys, settings.site.state_dir
    own = tls.KeyFiles(mine.key, mine.certificate, mine.authority)
    yield from keys.check(own, site=settings.site.name)
    try:
        hops.place_of(settings.site.server, settings.proxy)
    except GuilderError as error:  # the proxy's password
        yield of("keys", error)
    if os.access(state, os.W_OK):  # else the ledger says what is wrong
        yield machine.disk(state)
    yield from _clock(state / "ledger.db")
    yield from versions.check()
    yield from files(settings)


def files(settings: SiteFile) -> Iterator[Finding]:
    """Each file of rows that is not there: studies that need it are refused."""
    for name, source in settings.data.items():
        if not source.path.exists():
            yield warning(
                "data", "GLD-D001", f"{name}: {source.path} is not there",
                why="[data] names a file that this user cannot see.",
                fix="Correct the path, or give the client's user permission.",
            )  # fmt: skip


def _clock(ledger: Path) -> Iterator[Finding]:
    """Compare with when the ledger was written; with the server's once it answers."""
    try:
        behind_s = ledger.stat().st_mtime - time.time()
    except OSError:
        return
    if behind_s > BEHIND_S:
        yield warning(
            "time", "GLD-N096",
            f"this machine's clock is {behind_s:.0f} s before the ledger's last entry",
            why="It was put back, or was wrong when the entry was written.",
            fix="Set the clock, best by NTP (`timedatectl set-ntp true`).",
        )  # fmt: skip
