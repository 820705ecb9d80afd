"""Whether this site holds its replies back: a switch that a person turns, on disk.

A paused site begins no turn and accepts no study; paused *now*, it also keeps what it
has computed already. The switch is a file, looked at before each release and inside
each upload, so it works at once, beside a running client, and survives a restart.

Review, mathematics: the switch knows no row; that a site is paused, and since when, the
server can see. A turn that was charged stays charged, and its sealed bytes leave when
the pause ends, or never.
Review, crash order: the file is durable before the command returns. Where the disk has
no room for its word it is made empty, which needs none, and is a pause at once.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from guilder_shared import durable
from guilder_shared.errors import PolicyRefused


@dataclass(frozen=True)
class Paused:
    """A pause in force.

    Attributes:
        since: UTC, as ISO 8601.
        now: Nothing leaves any more, not even the turn that is being computed.
    """

    since: str
    now: bool


class Pause:
    """The switch of one site, `state_dir/pause.json`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "pause.json"

    def begin(self, *, now: bool) -> Paused:
        """Pause the site; durable when this returns. On a full disk it is one at once.

        Args:
            now: Also what a turn has computed already stays here.

        Raises:
            OSError: The folder takes not even a name: the site is not paused.
        """
        since = datetime.now(UTC).isoformat(timespec="seconds")
        told = json.dumps({"since": since, "now": now}).encode()
        try:
            durable.write(self._path, told, mode=durable.OWNER_ONLY)
        except OSError:
            self._make_empty()
            return Paused(since, now=True)
        return Paused(since, now)

    def _make_empty(self) -> None:
        with contextlib.suppress(OSError):
            self._path.with_name(f"{self._path.name}.part").unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        durable.write_through(os.open(self._path, flags, durable.OWNER_ONLY), b"")
        durable.sync_folder(self._path.parent)

    def end(self) -> bool:
        """Let the site go on; False if it was not paused."""
        if not self._path.exists():
            return False
        self._path.unlink()
        durable.sync_folder(self._path.parent)
        return True

    def state(self) -> Paused | None:
        """The pause in force, or None. A file that cannot be read is a pause, now."""
        try:
            told = json.loads(self._path.read_bytes())
            return Paused(str(told["since"]), bool(told["now"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return Paused("an unknown time", now=True)

    def holds(self) -> bool:
        """Whether nothing computed from rows may leave at this moment."""
        state = self.state()
        return state is not None and state.now

    def demand_none(self, site: str) -> None:
        """Begin nothing while the site is paused.

        Raises:
            PolicyRefused: GLD-S062. Nothing was read or charged.
        """
        if self.state() is not None:
            raise PolicyRefused(
                "GLD-S062",
                f"site {site!r} is paused",
                why="A person at the site paused it; the study may go on later.",
                fix="guilder client pause --end",
            )
