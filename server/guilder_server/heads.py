"""What this server remembers of each site's ledger: the commitments in its replies.

A site whose ledger is older than what it once sent shows itself, and is told so before
it spends again. It learns nothing about a site's other studies (`ledger/heads.py`).

Crash order: a round's heads are durable before the round is committed, and so before
any receipt for it leaves. Killed between the two, the same turns are asked again and
bring the same heads.
"""

import json
import threading
from collections.abc import Mapping
from pathlib import Path

from guilder_shared import durable
from guilder_shared.errors import IntegrityError
from guilder_shared.messages import Head

MOST = 10_000  # numbers kept of one site, the newest


class Heads:
    """Commitments by site and number, in one file; safe to use from several threads.

    Args:
        path: The file; None keeps them in memory (a simulation).

    Raises:
        IntegrityError: The file is damaged (GLD-I083).
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, dict[int, str]] = _read(path)

    def newest(self, site: str | None) -> Head | None:
        """The highest number that a site has sent; None if it has sent none."""
        with self._lock:
            known = self._known.get(site or "")
            if not known:
                return None
            head_no = max(known)
            return Head(head_no, known[head_no])

    def check(self, site: str, head: Head | None) -> None:
        """Raise unless a reply's head goes with those before it.

        Raises:
            IntegrityError: The site sends none any more, or another commitment under
                a number that it used (GLD-I082).
        """
        with self._lock:
            known = self._known.get(site, {})
            if head is None:
                sound = not known
            else:
                sound = known.get(head.head_no, head.commitment) == head.commitment
        if sound:
            return
        raise IntegrityError(
            "GLD-I082",
            "its ledger is not the one it had before: it used the same number for "
            "another entry",
            why="An old copy was put back, or two copies of the ledger are in use.",
            fix="Ask its engineer and its data-protection officer before going on.",
        )

    def remember(self, heads: Mapping[str, Head]) -> None:
        """Keep the heads of a round's replies, by site; durable when this returns."""
        with self._lock:
            for site, head in heads.items():
                known = self._known.setdefault(site, {})
                known[head.head_no] = head.commitment
                for head_no in sorted(known)[:-MOST]:
                    del known[head_no]
            if self._path is not None and heads:
                durable.write(self._path, json.dumps(self._known).encode())


def _read(path: Path | None) -> dict[str, dict[int, str]]:
    if path is None or not path.exists():
        return {}
    try:
        raw = json.loads(path.read_bytes())
        return {
            str(site): {int(number): str(text) for number, text in known.items()}
            for site, known in raw.items()
        }
    except (ValueError, AttributeError, TypeError):
        raise IntegrityError(
            "GLD-I083",
            f"{path} is damaged: what sites' ledgers held cannot be remembered",
            fix="Restore the file from a back-up; without it no rollback is noticed.",
        ) from None
