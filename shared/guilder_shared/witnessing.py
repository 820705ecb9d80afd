"""A server's signed word about the newest entry it saw of a site's ledger.

A site keeps it in its ledger with the receipt of a turn. The site's own key could
write a whole ledger anew; it could not write these signatures. What is signed says
nothing of other studies (`privacy/ledger/heads.py`). This module keeps and sends
nothing.

The mathematics: Ed25519 (RFC 8032) over the site's name, a public number and a
commitment that binds the site to one entry. Crash order: signs only what the caller
has made durable.
"""

from typing import Any, Final

import rfc8785

from guilder_shared import strange_json
from guilder_shared.identity import SigningKey, unhex, verify
from guilder_shared.messages import Head

SCHEMA: Final = "guilder-witness-1"
PATH: Final = "/v1/guilder/witness"  # at which a server answers what it remembers
MOST_BYTES: Final = 4096
FIELDS: Final = frozenset({"server_key", "head_no", "commitment", "signature"})


def signed(head: Head, site: str, key: SigningKey) -> Head:
    """The same head with the server's signature over it.

    Args:
        head: What the server remembers, durably.
        site: Whose ledger.
        key: The server's; not the one of its TLS certificate.
    """
    signature = key.sign(_statement(site, head.head_no, head.commitment)).hex()
    return Head(head.head_no, head.commitment, key.public_hex, signature)


def is_signed(witness: dict[str, Any], site: str) -> bool:
    """Whether an entry's `witness` bears the signature of the key it names.

    Args:
        witness: `FIELDS`; of any type, for it may come from a forged file.
        site: Whose ledger holds it.
    """
    if witness.keys() != FIELDS:
        return False
    try:
        signature = unhex(witness["signature"])
        told = _statement(site, int(witness["head_no"]), str(witness["commitment"]))
        return verify(str(witness["server_key"]), told, signature)
    except (TypeError, ValueError):
        return False


def as_body(head: Head | None) -> dict[str, Any] | None:
    """A witness as a ledger keeps it; None where the server signed nothing."""
    if head is None or not head.signature:
        return None
    return {
        "server_key": head.server_key,
        "head_no": head.head_no,
        "commitment": head.commitment,
        "signature": head.signature,
    }


def write(head: Head | None) -> bytes:
    """A server's answer: canonical JSON of `FIELDS`, or of an empty object."""
    return rfc8785.dumps(as_body(head) or {})


def read(data: bytes) -> Head | None:
    """What `write` wrote; whether it is signed is not looked at.

    Raises:
        ValueError: It is no such answer.
    """
    body = strange_json.read(data) if len(data) <= MOST_BYTES else None
    if body == {}:
        return None
    if not isinstance(body, dict) or body.keys() != FIELDS:
        raise ValueError("no answer of a witness")
    head_no = body.pop("head_no")
    if type(head_no) is not int or not 0 < head_no < 1 << 53:
        raise ValueError("no number of a head")
    if not all(isinstance(text, str) and text.isalnum() for text in body.values()):
        raise ValueError("no hash, key or signature")
    return Head(head_no, **body)


def _statement(site: str, head_no: int, commitment: str) -> bytes:
    return f"{SCHEMA}\n{site}\n{head_no}\n{commitment}\n".encode()
