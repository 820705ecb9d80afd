"""What this server remembers of each site's ledger: the commitments in its replies.

A site whose ledger is older than what it once sent shows itself, and is told so before
it spends again. It learns nothing about a site's other studies (`ledger/heads.py`).

Crash order: a round's heads are durable before the round is committed, and so before
any receipt for it leaves. Killed between the two, the same turns are asked again and
bring the same heads.
"""

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from guilder_shared import durable, witnessing
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Head

log = logging.getLogger(__name__)
MOST = 10_000  # numbers kept of one site, the newest
FILE, KEY = "heads.json", "witness.key"
Known = dict[str, dict[int, tuple[str, str]]]  # site: number: commitment, run


class Heads:
    """Commitments by site and number, in one file; safe to use from several threads.

    Args:
        path: The file; None keeps them in memory (a simulation).
        key: Signs what is told of them; None signs nothing (a simulation).

    Raises:
        IntegrityError: The file is damaged (GLD-I083).
    """

    def __init__(self, path: Path | None, key: SigningKey | None = None) -> None:
        self._path = path
        self._key = key
        self._lock = threading.Lock()
        self._known: Known = _read(path)

    @classmethod
    def open(cls, storage: Path, *, has_runs: bool) -> Self:
        """A server's heads and its witness key in `storage`; made if not there.

        Args:
            storage: The server's folder.
            has_runs: Whether there were runs: then a missing file is a loss, which
                is told in the log, for nothing else could notice it.

        Raises:
            IntegrityError: The file is damaged (GLD-I083).
            EnrolmentError: The key cannot be used (GLD-E002, GLD-E003).
        """
        path = storage / FILE
        if has_runs and not path.exists():
            log.error(
                "GLD-I085 %s is missing: of no site it is known what its ledger held; "
                "an old ledger put back now is not noticed. Restore the file from a "
                "back-up if there is one",
                path,
            )
        if not (storage / KEY).exists():
            SigningKey.generate().save(storage / KEY)
        heads = cls(path, SigningKey.load(storage / KEY))
        if not path.exists():
            heads.remember({}, run_id="")
        return heads

    @property
    def server_key(self) -> str:
        """The public key of what it signs, hexadecimal; empty where it has none."""
        return "" if self._key is None else self._key.public_hex

    def newest(self, site: str | None) -> Head | None:
        """The highest number that a site has sent, signed; None if it sent none."""
        with self._lock:
            known = self._known.get(site or "")
            if not known:
                return None
            head_no = max(known)
            head = Head(head_no, known[head_no][0])
        if self._key is None or site is None:
            return head
        return witnessing.signed(head, site, self._key)

    def word(self, site: str) -> bytes:
        """The answer to a site that asks what is remembered of its ledger."""
        return witnessing.write(self.newest(site))

    def runs_after(self, site: str, head_no: int) -> dict[str, int]:
        """The runs of which a site sent results after a number, with how many.

        What a site must charge that lost everything after `head_no`.
        """
        runs: dict[str, int] = {}
        with self._lock:
            for number, (_, run_id) in sorted(self._known.get(site, {}).items()):
                if number > head_no:
                    runs[run_id] = runs.get(run_id, 0) + 1
        return runs

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
                before = known.get(head.head_no)
                sound = before is None or before[0] == head.commitment
        if sound:
            return
        raise IntegrityError(
            "GLD-I082",
            "its ledger is not the one it had before: it used the same number for "
            "another entry",
            why="An old copy was put back, or two copies of the ledger are in use.",
            fix="Ask its engineer and its data-protection officer before going on.",
        )

    def remember(self, heads: Mapping[str, Head], *, run_id: str) -> None:
        """Keep the heads of a round's replies, by site; durable when this returns."""
        with self._lock:
            for site, head in heads.items():
                known = self._known.setdefault(site, {})
                known[head.head_no] = (head.commitment, run_id)
                for head_no in sorted(known)[:-MOST]:
                    del known[head_no]
            if self._path is not None and (heads or not self._path.exists()):
                durable.write(self._path, json.dumps(self._known).encode())


def _read(path: Path | None) -> Known:
    if path is None or not path.exists():
        return {}
    try:
        raw = json.loads(path.read_bytes())
        return {
            str(site): {
                int(number): (str(commitment), str(run_id))
                for number, (commitment, run_id) in known.items()
            }
            for site, known in raw.items()
        }
    except (ValueError, AttributeError, TypeError):
        raise IntegrityError(
            "GLD-I083",
            f"{path} is damaged: what sites' ledgers held cannot be remembered",
            fix="Restore the file from a back-up; without it no rollback is noticed.",
        ) from None
