"""An invitation as one word to paste: where the server is, how to know it, a secret.

    guilder1/HOST:PORT/ROLE/NAME/ID/SECRET/PIN/CHECK

ID has 80 random bits and SECRET 256; PIN is the SHA-256 of the root's public key.
CHECK tells a word that was not copied whole from a server that is another. It holds no
private key. This module opens no connection and knows no list of invitations.
"""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Self

from guilder_shared.certificates import SITE_NAME
from guilder_shared.errors import EnrolmentError

FORMAT = "guilder1"
JOIN_NAME = "join.guilder.invalid"  # called in TLS by who joins; no DNS has it
ROLES = ("site", "operator", "officer", "admin")
LONGEST = 600
PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5})")
ID = re.compile(r"[a-z2-7]{16}")
SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
PIN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Token:
    """An invitation, as the invited has it. Its text is never logged: see `__repr__`.

    Attributes:
        host: The server's name or address; an IPv6 address without brackets.
        port: Its port for joining.
        role: "site", "operator", "officer" or "admin".
        name: Of the site or person.
        invitation_id: Names the invitation to the server.
        secret: Proves that one was invited; good once.
        pin: SHA-256 of the root's public key, 64 hexadecimal digits.
    """

    host: str
    port: int
    role: str
    name: str
    invitation_id: str
    secret: str
    pin: str

    @classmethod
    def make(cls, host: str, port: int, *, role: str, name: str, pin: str) -> Self:
        """A new invitation, from the operating system's randomness."""
        invitation_id = base64.b32encode(secrets.token_bytes(10)).decode().lower()
        secret = secrets.token_urlsafe(32)
        return cls(host, port, role, name, invitation_id, secret, pin)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the word that `text` wrote.

        Raises:
            EnrolmentError: It is none, or not the whole of one (GLD-E050). The
                message holds nothing of the word.
        """
        body, _, check = text.strip().rpartition("/")
        parts = body.split("/")
        if len(text) > LONGEST or len(parts) != 7 or parts[0] != FORMAT:
            raise _no_token()
        _, place, role, name, invitation_id, secret, pin = parts
        found = PLACE.fullmatch(place)
        is_good = (
            secrets.compare_digest(check.encode(), _check(body).encode())
            and role in ROLES
            and SITE_NAME.fullmatch(name)
            and ID.fullmatch(invitation_id)
            and SECRET.fullmatch(secret)
            and PIN.fullmatch(pin)
        )
        if not found or not is_good or int(found["port"]) > 65_535:
            raise _no_token()
        host = found["host"].strip("[]")
        return cls(host, int(found["port"]), role, name, invitation_id, secret, pin)

    def text(self) -> str:
        """The word to hand over, by a way that nobody else reads."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        parts = (FORMAT, f"{host}:{self.port}", self.role, self.name)
        body = "/".join((*parts, self.invitation_id, self.secret, self.pin))
        return f"{body}/{_check(body)}"

    def __repr__(self) -> str:
        return f"Token({self.role} {self.name!r} at {self.host}:{self.port})"


def secret_sha256(secret: str) -> str:
    """What a server keeps of a secret, in hexadecimal digits.

    A plain hash is enough: guessing 256 random bits is hopeless at any speed, and a
    slow hash would only slow the server that must compute it for every caller.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def proof_text(invitation_id: str, request_sha256: str) -> bytes:
    """What a site's Ed25519 key signs to show that the site has it."""
    return f"guilder-join-1\n{invitation_id}\n{request_sha256}\n".encode()


def short_code(request_sha256: str) -> str:
    """A request in eight letters, to compare by telephone before it is approved."""
    code = base64.b32encode(bytes.fromhex(request_sha256)[:5]).decode()
    return f"{code[:4]}-{code[4:8]}"


def _check(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:6]


def _no_token() -> EnrolmentError:
    return EnrolmentError(
        "GLD-E050",
        "this is no invitation, or not the whole of one",
        fix=f"Paste all of it, from {FORMAT}/ on; the operator makes a new one with "
        "`guilder server invite`.",
    )
