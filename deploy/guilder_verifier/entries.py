"""The entries of a ledger: found in a file, hashed, chained and signed.

Looks at text alone and parses no body, so that a changed byte costs two hashes and
not a reading of everything. Knows no kind of entry.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from guilder_verifier import edwards
from guilder_verifier.finding import Finding

JOURNAL = "guilder-journal-1"
GENESIS = "0" * 64
BODY = '{"body":'  # inside text its quotes would be escaped, so it only starts entries
REST = re.compile(
    r',"hash":"([0-9a-f]{64})","kind":"([a-z-]{1,40})","prev":"([0-9a-f]{64})"'
    r',"seq":([0-9]{1,15}),"signature":"([0-9a-f]{128})"\}'
)


@dataclass(frozen=True)
class Entry:
    """One entry as its file holds it.

    Attributes:
        seq: 1, 2, …, without gaps.
        kind: What the body says.
        body: Canonical JSON of one object.
        prev: Hash of the entry before, 64 hexadecimal digits.
        hash: Of this one.
        signature: Of the site's key, 128 hexadecimal digits.
        is_hashed: Whether `hash` is that of all the above.
    """

    seq: int
    kind: str
    body: str
    prev: str
    hash: str
    signature: str
    is_hashed: bool

    def to_text(self) -> str:
        """The entry as reports and exports hold it."""
        return (
            f'{BODY}{self.body},"hash":"{self.hash}","kind":"{self.kind}",'
            f'"prev":"{self.prev}","seq":{self.seq},"signature":"{self.signature}"}}'
        )


def find(text: str) -> list[Entry]:
    """The entries that a report or an export holds, in order, unchecked."""
    found = (_entry(part) for part in text.split(BODY)[1:])
    return [entry for entry in found if entry is not None]


@lru_cache(maxsize=4096)
def _entry(part: str) -> Entry | None:
    """Entries that a report and a ledger share are hashed once."""
    rest = REST.search(part)
    if rest is None:
        return None
    digest, kind, prev, seq, signature = rest.groups()
    body = part[: rest.start()]
    hashed = f"{JOURNAL}\n{int(seq)}\n{kind}\n{prev}\n{body}".encode()
    is_hashed = hashlib.sha256(hashed).hexdigest() == digest
    return Entry(int(seq), kind, body, prev, digest, signature, is_hashed)


def check_chain(entries: Sequence[Entry]) -> None:
    """Raise unless each entry is what was hashed and follows the one before.

    Raises:
        Finding: GLD-I001, with the number of the first that is not.
    """
    prev = GENESIS
    for seq, entry in enumerate(entries, 1):
        if not entry.is_hashed or (entry.seq, entry.prev) != (seq, prev):
            raise Finding(
                "GLD-I001",
                f"entry {seq} is not what was written, or does not follow entry "
                f"{seq - 1}",
            )
        prev = entry.hash


def check_signatures(entries: Sequence[Entry], public_hex: str) -> None:
    """Raise unless this key signed every entry.

    Raises:
        Finding: GLD-I003, with the number of the first that it did not.
    """
    for entry in entries:
        message = f"{JOURNAL} entry {entry.hash}".encode()
        if not edwards.verify(public_hex, message, bytes.fromhex(entry.signature)):
            raise Finding(
                "GLD-I003",
                f"entry {entry.seq} was not signed by the key {public_hex[:16]}…",
            )
