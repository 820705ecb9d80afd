"""Keys: who a site is, and how it signs what it says.

A site signs ledgers, reports and receipts with Ed25519; TLS has keys and
certificates of its own (`certificates.py`). This module opens no connection and
knows no study.
"""

import os
import secrets
import stat
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from guilder_shared import durable
from guilder_shared.errors import EnrolmentError

DIGITS = frozenset("0123456789abcdef")
PRIME = 2**255 - 19
# The y of the points of order 1, 2, 4 and 8: RFC 8032's curve has no others.
_EIGHTH = 2707385501144840649318225287225658788936804267575313519463743609750303402022
SMALL_ORDER = frozenset({1, PRIME - 1, 0, _EIGHTH, PRIME - _EIGHTH})


class SigningKey:
    """An Ed25519 key that signs what a site, or an officer, says.

    Signing is deterministic (RFC 8032): the same bytes give the same signature.
    """

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key

    def __repr__(self) -> str:
        return f"SigningKey(public_hex={self.public_hex!r})"

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key file written by `save`.

        Raises:
            EnrolmentError: The file is missing (GLD-E001), others may read it
                (GLD-E002), or it holds no Ed25519 key (GLD-E003).
        """
        private_key = _parse_private(read_private(path), path)
        if not isinstance(private_key, Ed25519PrivateKey):
            raise _not_a_key(path, "an Ed25519 signing key")
        return cls(private_key)

    def save(self, path: Path) -> None:
        """Write the key as PEM (PKCS 8), mode 0600, durable, never over a file.

        Raises:
            EnrolmentError: A file is there already (GLD-E004).
        """
        pem = self._private_key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        write_private(path, pem)

    def sign(self, data: bytes) -> bytes:
        """Sign bytes.

        Returns:
            64 bytes.
        """
        return self._private_key.sign(data)

    @property
    def public_hex(self) -> str:
        """The public key: 32 bytes as 64 hexadecimal digits."""
        raw = self._private_key.public_key().public_bytes(
            Encoding.Raw, PublicFormat.Raw
        )
        return raw.hex()


def verify(public_hex: str, data: bytes, signature: bytes) -> bool:
    """Say whether `signature` over `data` was made by the key of `public_hex`.

    Anything malformed (a key or signature of another length, no small hexadecimal
    digits) is simply not a valid signature: the answer is False. So it is for the few
    "keys" with which anybody could sign.
    """
    try:
        raw = unhex(public_hex)
        if _is_weak(raw):
            return False
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def unhex(text: str) -> bytes:
    """Bytes of small hexadecimal digits; no bytes where they are none.

    Capitals and spaces would be a second spelling of a signature.
    """
    is_plain = isinstance(text, str) and set(text) <= DIGITS
    return bytes.fromhex(text) if is_plain and len(text) % 2 == 0 else b""


def _is_weak(raw: bytes) -> bool:
    """Points of order 8 and less, and second spellings of a point."""
    y = int.from_bytes(raw, "little") % 2**255
    return y >= PRIME or y in SMALL_ORDER


def write_private(path: Path, data: bytes) -> None:
    """Write a file only its owner may read; durable before this returns.

    The file has mode 0600 from its first instant, is there whole or not at all
    whenever the process is killed, and never takes the place of another file.

    Raises:
        EnrolmentError: A file is there already (GLD-E004).
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    durable.write_through(os.open(part, flags, durable.OWNER_ONLY), data)
    try:
        os.link(part, path)  # unlike a rename, it takes no other file's place
    except FileExistsError:
        raise EnrolmentError(
            "GLD-E004",
            f"{path} exists already; a key is never overwritten",
            fix="Use another folder, or move the old keys away first.",
        ) from None
    finally:
        part.unlink()
    durable.sync_folder(path.parent)


def read_private(path: Path) -> bytes:
    """Read a key file, refusing one that others may read.

    The mode is read from the opened file, so it cannot be swapped in between.

    Raises:
        EnrolmentError: The file is missing or unreadable (GLD-E001), or its group
            or others have any permission on it (GLD-E002).
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read()
    except OSError as error:
        raise EnrolmentError(
            "GLD-E001",
            f"key file {path} cannot be read: {error.strerror}",
            fix="Check the path in the file; put the key back from a backup.",
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise EnrolmentError(
            "GLD-E002",
            f"key file {path} has mode {mode:04o}: others than its owner can use it",
            fix=f"chmod 600 {path}",
        )
    return data


def _parse_private(pem: bytes, path: Path) -> object:
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise _not_a_key(path, "a PEM key without a passphrase") from None


def _not_a_key(path: Path, wanted: str) -> EnrolmentError:
    return EnrolmentError(
        "GLD-E003",
        f"{path} does not hold {wanted}",
        fix="Point to the file that `guilder server init` wrote, or make new keys.",
    )
