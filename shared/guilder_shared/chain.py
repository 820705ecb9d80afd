"""The chain of a ledger: entries, each bound to the one before it and signed.

Pure functions of bytes, so that a report can be checked on a computer that never
saw the ledger. This module opens no file and knows no study.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from guilder_shared.errors import IntegrityError
from guilder_shared.identity import unhex, verify

FORMAT = "guilder-journal-1"
GENESIS = "0" * 64  # the `prev` of entry 1


@dataclass(frozen=True)
class Entry:
    """One line of the journal.

    Attributes:
        seq: 1, 2, …, without gaps.
        kind: What the entry says: small letters and hyphens.
        body: The saying itself, canonical JSON (RFC 8785) of an object.
        prev: Hash of the entry before, 64 hexadecimal digits; zeros for the first.
        hash: SHA-256 over all of the above, as `digest` computes it.
        signature: Ed25519 over `signed_bytes(hash)`, 128 hexadecimal digits.
    """

    seq: int
    kind: str
    body: bytes
    prev: str
    hash: str
    signature: str

    @cached_property
    def true_hash(self) -> str:
        """The hash that its other parts have; a changed entry bears another one."""
        return digest(self.seq, self.kind, self.prev, self.body)

    def content(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


def digest(seq: int, kind: str, prev: str, body: bytes) -> str:
    """SHA-256 of format, seq, kind and prev, a line each, then the body; as hex."""
    head = f"{FORMAT}\n{seq}\n{kind}\n{prev}\n".encode()
    return hashlib.sha256(head + body).hexdigest()


def signed_bytes(entry_hash: str) -> bytes:
    """The bytes an entry's signature is made over."""
    return f"{FORMAT} entry {entry_hash}".encode()


def end_bytes(seq: int, entry_hash: str, moment: str) -> bytes:
    """What is signed at the end of an export: that `seq` was the newest entry then."""
    return f"{FORMAT} end {seq} {entry_hash} {moment}".encode()


def check_chain(entries: Iterable[Entry], public_hex: str) -> Iterator[Entry]:
    """Yield the entries again, each one checked before it is yielded.

    Args:
        entries: From the first one on, in order.
        public_hex: The key that must have signed every one of them.

    Raises:
        IntegrityError: An entry is missing, was changed or does not follow the
            one before it (GLD-I001), or was not signed by this key (GLD-I003).
    """
    prev = GENESIS
    for seq, entry in enumerate(entries, start=1):
        _check_hash(entry, seq, prev)
        _check_signature(entry, public_hex)
        prev = entry.hash
        yield entry


def check_hashes(entries: Iterable[Entry]) -> None:
    """Raise unless each entry is what was hashed and follows the one before.

    Cheap, and needs no key: for files that may have been changed anywhere.

    Raises:
        IntegrityError: GLD-I001, with the number of the first that is not.
    """
    prev = GENESIS
    for seq, entry in enumerate(entries, start=1):
        _check_hash(entry, seq, prev)
        prev = entry.hash


def check_signatures(entries: Iterable[Entry], public_hex: str) -> None:
    """Raise unless this key signed every entry.

    Raises:
        IntegrityError: GLD-I003, with the number of the first that it did not.
    """
    for entry in entries:
        _check_signature(entry, public_hex)


def _check_hash(entry: Entry, seq: int, prev: str) -> None:
    if (entry.seq, entry.prev, entry.hash) != (seq, prev, entry.true_hash):
        raise IntegrityError(
            "GLD-I001",
            f"entry {seq} is not what was written, or does not follow entry {seq - 1}",
            why="Its hash does not fit its content and the entry before it.",
            fix="Keep the file as evidence; restore a backup that verifies.",
        )


@lru_cache(maxsize=4096)  # entries that a report and an export share
def _is_signed(entry_hash: str, signature: str, public_hex: str) -> bool:
    return verify(public_hex, signed_bytes(entry_hash), unhex(signature))


def _check_signature(entry: Entry, public_hex: str) -> None:
    if not _is_signed(entry.hash, entry.signature, public_hex):
        raise IntegrityError(
            "GLD-I003",
            f"entry {entry.seq} was not signed by the key {public_hex[:16]}…",
            why="It was forged, or this is the ledger of another site.",
            fix="Check that the ledger and the signing key belong together.",
        )
