"""Mutual TLS 1.3 in which both sides show a certificate of the same authority.

No public authority is ever believed and no older version spoken. This module
opens no connection; who may do what is decided by who reads the certificate.
"""

import datetime
import itertools
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from guilder_shared.certificates import load_certificate, load_chain, load_tls_key
from guilder_shared.errors import EnrolmentError


@dataclass(frozen=True)
class KeyFiles:
    """The three files with which one side shows who it is, PEM."""

    key: Path
    certificate: Path
    authority: Path

    @classmethod
    def in_folder(cls, folder: Path, who: str) -> "KeyFiles":
        """The usual names: WHO.key, WHO.pem and ca.pem."""
        return cls(folder / f"{who}.key", folder / f"{who}.pem", folder / "ca.pem")


def server_context(keys: KeyFiles | Path) -> ssl.SSLContext:
    """TLS 1.3 for the server: only certificates of our own authority come in.

    Args:
        keys: The files, or the folder in which they have their usual names.

    Raises:
        EnrolmentError: A key or certificate is missing, open to others, run out, or
            signed by another authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _mutual(context, _files(keys, "server"))


def client_context(keys: KeyFiles | Path, who: str = "site") -> ssl.SSLContext:
    """TLS 1.3 for a site (or `who="operator"`): our own authority, and no other.

    Args:
        keys: The files, or the folder in which they have their usual names.
        who: Whose usual names.

    Raises:
        EnrolmentError: A key or certificate is missing, open to others, run out, or
            signed by another authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the host's name
    return _mutual(context, _files(keys, who))


def _files(keys: KeyFiles | Path, who: str) -> KeyFiles:
    return keys if isinstance(keys, KeyFiles) else KeyFiles.in_folder(keys, who)


def _mutual(context: ssl.SSLContext, files: KeyFiles) -> ssl.SSLContext:
    key, certificate = files.key, files.certificate
    load_tls_key(key)  # refuses a key that others may read
    check_dates(load_certificate(certificate), certificate)
    check_issuer(certificate, files.authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cafile=str(files.authority))
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError:
        raise EnrolmentError(
            "GLD-E009", f"{key} is not the key of {certificate}"
        ) from None
    return context


def check_dates(certificate: x509.Certificate, path: Path) -> None:
    """Refuse a certificate that has run out or is not good yet.

    Raises:
        EnrolmentError: GLD-E008, with both dates and this machine's.
    """
    now = datetime.datetime.now(datetime.UTC)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= now <= end:
        raise EnrolmentError(
            "GLD-E008",
            f"{path} is good from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, "
            f"and this machine says {now:%Y-%m-%d %H:%M} UTC",
            fix="Correct this machine's clock, or ask the operator for new keys.",
        )


def check_issuer(path: Path, authority: Path) -> None:
    """Refuse a certificate that the authority did not sign.

    The other side would only cut the connection, without a word.

    Raises:
        EnrolmentError: GLD-E011.
    """
    try:
        chain = [*load_chain(path), load_certificate(authority)]
        if chain[-2] == chain[-1]:  # the authority itself was handed over too
            chain.pop()
        for below, above in itertools.pairwise(chain):
            below.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature):
        raise EnrolmentError(
            "GLD-E011",
            f"{path} was not signed by the authority of {authority}",
            fix="Take both files from the same consortium's operator.",
        ) from None
