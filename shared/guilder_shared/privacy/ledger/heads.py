"""Commitments to the newest entry of a ledger, for servers to remember.

A server that remembers a commitment can show later that the ledger held the entry
behind it; it learns nothing about other servers' studies, for the number counts its
own turns alone and the salt hides the rest. This module sends nothing.

The mathematics: SHA-256 over 128 random bits and public numbers hides the entry's
place in the ledger, and binds the site to it. Crash order: the commitment is computed
from the `seal` entry, which is durable before a byte of the result leaves.
"""

import hashlib
from dataclasses import dataclass

SCHEMA = "guilder-head-1"


@dataclass(frozen=True)
class Head:
    """What one sealed turn commits its site to.

    Attributes:
        server: To whom it is sent.
        head_no: 1, 2, 3, … for this server alone.
        grant_id: Of the turn.
        turn_no: Of the turn.
        seq: Of its `seal` entry; secret until the salt is shown.
        commitment: SHA-256, 64 hexadecimal digits; travels in the turn's reply.
    """

    server: str
    head_no: int
    grant_id: str
    turn_no: int
    seq: int
    commitment: str


def commitment(salt: str, seq: int, entry_hash: str) -> str:
    """The commitment to a `seal` entry, as 64 hexadecimal digits.

    Args:
        salt: Of the entry, 32 hexadecimal digits.
        seq: Of the entry.
        entry_hash: Of the entry.
    """
    lines = f"{SCHEMA}\n{salt}\n{seq}\n{entry_hash}\n"
    return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class Word:
    """The newest head that a server signed for, as receipts in the ledger have it.

    Attributes:
        head_no: Of the head.
        server_key: The key that signed, hexadecimal.
    """

    head_no: int
    server_key: str


@dataclass(frozen=True)
class Forgot:
    """One time that a server remembered less than it had signed for.

    Attributes:
        server: Its name in the ledger.
        time: Of the entry.
        head_no: Of the newest head that it had signed for.
        remembers: Of the newest head that it still knew; 0: none.
    """

    server: str
    time: str
    head_no: int
    remembers: int
