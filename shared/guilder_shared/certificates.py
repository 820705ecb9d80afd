"""Certificates: who belongs to a consortium, signed by its own authority.

A site's certificate binds three things under the authority's signature: its name,
its TLS key (which is its Flower node key too: one P-256 key), and its Ed25519
signing key. This module opens no connection; enrolment over the network is not here.

`init_local_sites(folder, …)` writes, every key with mode 0600:

    folder/server/authority.key, ca.pem        the consortium's own authority
    folder/server/server.key, server.pem       what the server shows
    folder/server/operator.key, operator.pem   what `guilder run …` shows the server
    folder/server/sites/NAME.pem               the roster: certificates only, no key
    folder/sites/NAME/site.key, site.pem       what the site shows; its node key
    folder/sites/NAME/signing.key              Ed25519: ledger, reports, receipts
    folder/sites/NAME/ca.pem                   whom the site believes
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from guilder_shared import drafts
from guilder_shared.drafts import Authority
from guilder_shared.errors import EnrolmentError
from guilder_shared.identity import SigningKey, read_private, write_private

AUTHORITY_DAYS = 3650
LEAF_DAYS = 365
SITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# Subject alternative names of ours: shown by every certificate viewer, unlike a
# private extension. A colon cannot be in a site's name, so no site is an operator.
SITE_URI = "urn:guilder:site:"
SIGNING_URI = "urn:guilder:signing-key:"
ROLE_URI = "urn:guilder:role:"


@dataclass(frozen=True)
class SiteCertificate:
    """What one site's certificate says.

    Attributes:
        name: The site's name.
        node_key: Public TLS and Flower node key, PEM (SubjectPublicKeyInfo).
        signing_hex: Public Ed25519 key, 64 hexadecimal digits.
    """

    name: str
    node_key: bytes
    signing_hex: str


def make_authority(folder: Path) -> Authority:
    """Make the authority's key and certificate in `folder`, which must exist.

    Raises:
        EnrolmentError: There is an authority already (GLD-E004).
    """
    authority = drafts.signer(None, "guilder consortium", AUTHORITY_DAYS, 0)
    write_private(folder / "authority.key", drafts.pem_key(authority.key))
    _write_public(folder / "ca.pem", authority.certificate)
    return authority


def load_authority(folder: Path) -> Authority:
    """Read what `make_authority` wrote.

    Raises:
        EnrolmentError: A file is missing, open to others, or not what it should be.
    """
    key = load_tls_key(folder / "authority.key")
    return Authority(key, load_certificate(folder / "ca.pem"))


def issue_server(authority: Authority, folder: Path, hosts: Sequence[str]) -> None:
    """Write server.key and server.pem, good for `hosts` (names or IP addresses)."""
    names = [drafts.host_name(host) for host in hosts]
    key, certificate = _issue(
        authority, hosts[0], names, ExtendedKeyUsageOID.SERVER_AUTH
    )
    write_private(folder / "server.key", key)
    _write_public(folder / "server.pem", certificate)


def issue_site(authority: Authority, folder: Path, name: str) -> x509.Certificate:
    """Write a site's keys, its certificate and the authority's into `folder`.

    Raises:
        EnrolmentError: The name is not lower-case letters, digits, `-`, `_`
            (GLD-E005), or there are keys already (GLD-E004).
    """
    check_site_name(name)
    signing = SigningKey.generate()
    names = [drafts.uri(SITE_URI + name), drafts.uri(SIGNING_URI + signing.public_hex)]
    key, certificate = _issue(authority, name, names, ExtendedKeyUsageOID.CLIENT_AUTH)
    write_private(folder / "site.key", key)
    signing.save(folder / "signing.key")
    _write_public(folder / "site.pem", certificate)
    _write_public(folder / "ca.pem", authority.certificate)
    return certificate


def issue_role(authority: Authority, folder: Path, role: str) -> None:
    """Write ROLE.key and ROLE.pem: a person's certificate for the control service.

    Its common name is `role:ROLE`, so it can never be taken for a site's.
    """
    names = [drafts.uri(ROLE_URI + role)]
    key, certificate = _issue(
        authority, f"role:{role}", names, ExtendedKeyUsageOID.CLIENT_AUTH
    )
    write_private(folder / f"{role}.key", key)
    _write_public(folder / f"{role}.pem", certificate)


def init_local_sites(
    folder: Path, names: Sequence[str], hosts: Sequence[str] = ("localhost",)
) -> None:
    """Make a whole consortium's keys on one machine; the module's text has the layout.

    Args:
        folder: Made if it does not exist.
        names: One per site.
        hosts: Where sites will reach the server: names or IP addresses. Loopback
            is always included.

    Raises:
        EnrolmentError: A name is malformed or double (GLD-E005), or keys exist
            already (GLD-E004).
    """
    for name in names:
        check_site_name(name)
    if len(set(names)) != len(names):
        raise EnrolmentError("GLD-E005", f"a site name is there twice: {list(names)}")
    server = folder / "server"
    (server / "sites").mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = make_authority(server)
    hosts_all = dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1"])
    issue_server(authority, server, list(hosts_all))
    issue_role(authority, server, "operator")
    for name in names:
        site = folder / "sites" / name
        site.mkdir(parents=True, exist_ok=True, mode=0o700)
        certificate = issue_site(authority, site, name)
        _write_public(server / "sites" / f"{name}.pem", certificate)


def roster(folder: Path) -> dict[str, SiteCertificate]:
    """Read the sites a server knows, `folder/NAME.pem`, by name.

    Raises:
        EnrolmentError: A file is no certificate (GLD-E006), or no site's, or
            another site's than its file name says (GLD-E007).
    """
    found = {}
    for path in sorted(folder.glob("*.pem")):
        site = read_site(load_certificate(path))
        if site.name != path.stem:
            raise EnrolmentError(
                "GLD-E007", f"{path} holds the certificate of site {site.name!r}"
            )
        found[site.name] = site
    return found


def read_site(certificate: x509.Certificate) -> SiteCertificate:
    """Read what a site's certificate says; its signature is not checked here.

    Raises:
        EnrolmentError: It is not a site's certificate (GLD-E007).
    """
    found = uris(certificate)
    names = [u.removeprefix(SITE_URI) for u in found if u.startswith(SITE_URI)]
    keys = [u.removeprefix(SIGNING_URI) for u in found if u.startswith(SIGNING_URI)]
    if len(names) != 1 or len(keys) != 1 or not SITE_NAME.fullmatch(names[0]):
        raise EnrolmentError(
            "GLD-E007",
            f"the certificate of {certificate.subject.rfc4514_string()} is no site's",
            fix="Use the site.pem that `guilder client join` wrote.",
        )
    return SiteCertificate(names[0], public_pem(certificate), keys[0])


def public_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate's public key as PEM: how Flower names a node's key."""
    return certificate.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )


def load_certificate(path: Path) -> x509.Certificate:
    """Read one certificate.

    Raises:
        EnrolmentError: The file is missing or holds none (GLD-E006).
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise EnrolmentError(
            "GLD-E006",
            f"{path} is missing or holds no certificate",
            fix="Put it back from a backup, or join anew: `guilder client join TOKEN`.",
        ) from None


def load_chain(path: Path) -> list[x509.Certificate]:
    """Read a certificate and those that vouch for it, nearest first.

    Raises:
        EnrolmentError: The file is missing or holds none (GLD-E006).
    """
    load_certificate(path)
    return x509.load_pem_x509_certificates(path.read_bytes())


def load_tls_key(
    path: Path, passphrase: bytes | None = None
) -> ec.EllipticCurvePrivateKey:
    """Read a P-256 private key.

    Raises:
        EnrolmentError: The file is missing (GLD-E001), open to others (GLD-E002),
            holds no such key (GLD-E003), or is encrypted and the passphrase is
            missing or another (GLD-E062).
    """
    pem = read_private(path)
    is_secret = b"ENCRYPTED PRIVATE KEY" in pem
    try:
        key = load_pem_private_key(pem, password=passphrase if is_secret else None)
    except (ValueError, TypeError):
        if is_secret:
            raise EnrolmentError(
                "GLD-E062",
                f"{path} is encrypted, and "
                + ("the passphrase is another" if passphrase else "no passphrase came"),
                fix="--passphrase-file FILE, or GUILDER_PASSPHRASE.",
            ) from None
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise EnrolmentError("GLD-E003", f"{path} does not hold a TLS key (P-256)")
    return key


def check_site_name(name: str) -> None:
    """Refuse a name that would not do as a folder, a certificate and a table key.

    Raises:
        EnrolmentError: GLD-E005.
    """
    if not SITE_NAME.fullmatch(name):
        raise EnrolmentError(
            "GLD-E005",
            f"{name!r} is no name for a site",
            fix="Up to 63 of a-z, 0-9, - and _, beginning with a letter or digit.",
        )


def _issue(
    authority: Authority,
    common_name: str,
    names: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
) -> tuple[bytes, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = drafts.leaf(
        authority, key.public_key(), common_name, names, purpose, LEAF_DAYS
    )
    return drafts.pem_key(key), certificate


def uris(certificate: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    """The names of ours in a certificate, or in a request for one."""
    try:
        names = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _write_public(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
