"""A consortium's authority in two steps, and what it signs for its members.

The root signs one certificate, that of the issuing key, and is then put away; the
issuing key lies at the server and signs the server's and the members' certificates.
Whoever knows the root's public key knows the consortium: its SHA-256 is the *pin* in
an invitation. This module opens no connection; who is invited is not decided here.

`make_authority(folder, …)` writes, every key with mode 0600:

    folder/root.key, ca.pem            ten years; the key belongs off this machine
    folder/issuing.key, issuing.pem    three years; both keys may have a passphrase
    folder/server.key, server.pem      what the server shows, up to the root
"""

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from guilder_shared import drafts, durable
from guilder_shared.certificates import (
    ROLE_URI,
    SIGNING_URI,
    SITE_URI,
    load_certificate,
    load_chain,
    load_tls_key,
    uris,
)
from guilder_shared.drafts import Authority
from guilder_shared.errors import EnrolmentError
from guilder_shared.identity import write_private
from guilder_shared.invitation import JOIN_NAME

ROOT_DAYS = 3650
ISSUING_DAYS = 1095
MEMBER_DAYS = 90  # renewed when half of them are over
PERSON_URI = "urn:guilder:person:"
MOST_REQUEST_BYTES = 8 << 10
HALF = 2


@dataclass(frozen=True)
class Request:
    """What somebody asks to have certified; its own signature is checked.

    Attributes:
        key: The TLS key, whose private half signed the request.
        name: As the request has it; what counts is the invitation.
        signing_hex: Public Ed25519 key, or "" for a person.
        sha256: Of the request, in hexadecimal digits: asked again, it is the same.
        pem: The request itself, and nothing that stood around it.
    """

    key: ec.EllipticCurvePublicKey
    name: str
    signing_hex: str
    sha256: str
    pem: str

    @property
    def key_sha256(self) -> str:
        """SHA-256 of the TLS key: how a caller is known."""
        return key_sha256(self.key)


def make_authority(
    folder: Path, hosts: Sequence[str], passphrase: bytes | None = None
) -> Authority:
    """Make root, issuing key and the server's certificate in `folder`.

    Returns:
        What issues from now on.

    Raises:
        EnrolmentError: There are keys already (GLD-E004).
    """
    root = drafts.signer(None, "guilder consortium", ROOT_DAYS, 1)
    write_private(folder / "root.key", drafts.pem_key(root.key, passphrase))
    write_pem(folder / "ca.pem", [root.certificate])
    name = f"guilder issuing {secrets.token_hex(4)}"
    issuing = drafts.signer(root, name, ISSUING_DAYS, 0)
    write_private(folder / "issuing.key", drafts.pem_key(issuing.key, passphrase))
    write_pem(folder / "issuing.pem", [issuing.certificate])
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(folder / "server.key", drafts.pem_key(key))
    shown = certify_server(issuing, key.public_key(), hosts)
    write_pem(folder / "server.pem", [shown, issuing.certificate, root.certificate])
    return issuing


def reissue(
    folder: Path, root_key: Path, passphrase: bytes | None = None
) -> x509.Certificate:
    """Make a new issuing key in `folder`, signed by the root that was put away.

    The old pair is kept beside it under another name. Certificates that it signed stay
    good; the server's own is renewed at its next start.

    Raises:
        EnrolmentError: The root's key cannot be read, or is not that of ca.pem
            (GLD-E009).
    """
    root = load_issuing(root_key, folder / "ca.pem", passphrase)
    mark = secrets.token_hex(4)
    for name in ("issuing.key", "issuing.pem"):
        if (folder / name).exists():
            (folder / name).rename(folder / f"{name}.{mark}")
    issuing = drafts.signer(root, f"guilder issuing {mark}", ISSUING_DAYS, 0)
    write_pem(folder / "issuing.pem", [issuing.certificate])
    write_private(folder / "issuing.key", drafts.pem_key(issuing.key, passphrase))
    return issuing.certificate


def load_issuing(key: Path, certificate: Path, passphrase: bytes | None) -> Authority:
    """Read the issuing key and its certificate.

    Raises:
        EnrolmentError: A file is missing, open to others, or not what it should be;
            the passphrase is missing or another (GLD-E062); or key and certificate
            do not belong together (GLD-E009).
    """
    authority = Authority(load_tls_key(key, passphrase), load_certificate(certificate))
    if authority.key.public_key() != authority.certificate.public_key():
        raise EnrolmentError("GLD-E009", f"{key} is not the key of {certificate}")
    return authority


def certify_server(
    issuing: Authority, key: ec.EllipticCurvePublicKey, hosts: Sequence[str]
) -> x509.Certificate:
    """Sign what the server shows, good for `hosts` (names or IP addresses)."""
    names = [drafts.host_name(host) for host in [*hosts, JOIN_NAME]]
    return drafts.leaf(
        issuing, key, hosts[0], names, ExtendedKeyUsageOID.SERVER_AUTH, MEMBER_DAYS
    )


def renew_server(issuing: Authority, path: Path) -> bool:
    """Write the server's certificate anew, for the same key and hosts.

    Returns:
        Whether half of its life was over, or another key issues now.
    """
    old, *above = load_chain(path)
    is_current = old.issuer == issuing.certificate.subject
    if is_current and time.time() < half_life(old):
        return False
    names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    key = old.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # we made it
    common = old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    purpose = ExtendedKeyUsageOID.SERVER_AUTH
    fresh = drafts.leaf(issuing, key, str(common), list(names), purpose, MEMBER_DAYS)
    write_pem(path, [fresh, issuing.certificate, above[-1]])
    return True


def certify(
    issuing: Authority,
    key: ec.EllipticCurvePublicKey,
    *,
    name: str,
    role: str,
    signing_hex: str = "",
) -> x509.Certificate:
    """Sign a member's certificate; nothing in it comes from the member but the keys.

    Args:
        issuing: Who signs.
        key: The member's TLS key.
        name: As invited.
        role: "site", or what a person may do.
        signing_hex: A site's Ed25519 key; it is bound by this signature.
    """
    if role == "site":
        common, texts = name, [SITE_URI + name, SIGNING_URI + signing_hex]
    else:  # a colon cannot be in a site's name, so no person is a site
        common, texts = f"role:{role}:{name}", [ROLE_URI + role, PERSON_URI + name]
    names = [drafts.uri(text) for text in texts]
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH
    return drafts.leaf(issuing, key, common, names, purpose, MEMBER_DAYS)


def make_request(
    key: ec.EllipticCurvePrivateKey, name: str, signing_hex: str = ""
) -> bytes:
    """A request for a certificate, PEM, signed with the key it is for."""
    texts = [SIGNING_URI + signing_hex] if signing_hex else [PERSON_URI + name]
    names = x509.SubjectAlternativeName([drafts.uri(text) for text in texts])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(drafts.named(name))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(Encoding.PEM)


def read_request(pem: bytes) -> Request:
    """Read a request from somebody who may be hostile.

    Raises:
        EnrolmentError: It is none, is for another kind of key than P-256, or was not
            signed by the key it is for (GLD-E056).
    """
    try:
        if len(pem) > MOST_REQUEST_BYTES:
            raise ValueError("too long")
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(
            key.curve, ec.SECP256R1
        )
        if not is_p256 or not request.is_signature_valid:
            raise ValueError("another key")
        found = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        (name,) = (attribute.value for attribute in found)
        keys = [u.removeprefix(SIGNING_URI) for u in uris(request)]
        signing_hex = keys[0] if len(keys[0]) == 64 else ""
    except Exception:  # whatever a parser says of bytes from a stranger
        raise EnrolmentError(
            "GLD-E056",
            "the request for a certificate is none, or not signed by its own P-256 key",
            fix="Join with `guilder client join`, which makes keys and request.",
        ) from None
    assert isinstance(key, ec.EllipticCurvePublicKey)
    der = request.public_bytes(Encoding.DER)
    pem_alone = request.public_bytes(Encoding.PEM).decode()
    digest = hashlib.sha256(der).hexdigest()
    return Request(key, str(name), signing_hex, digest, pem_alone)


def pin(root: x509.Certificate) -> str:
    """SHA-256 of a root's public key, in hexadecimal digits."""
    return key_sha256(root.public_key())


def key_sha256(key: CertificatePublicKeyTypes) -> str:
    """SHA-256 of a public key (SubjectPublicKeyInfo, DER), in hexadecimal digits."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def half_life(certificate: x509.Certificate) -> float:
    """From when on it should be renewed, in seconds since 1970."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (start + (end - start) / HALF).timestamp()


def to_pem(chain: Sequence[x509.Certificate]) -> bytes:
    """Certificates one after the other."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in chain)


def write_pem(path: Path, chain: Sequence[x509.Certificate]) -> None:
    """Write certificates, durably; an earlier file is replaced whole."""
    durable.write(path, to_pem(chain))
