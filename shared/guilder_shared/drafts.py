"""What every certificate of ours has in common: names, uses, dates, serial numbers.

P-256 keys, SHA-256, all extensions that strict checking asks for. This module keeps no
key and decides nothing about who gets a certificate.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class Authority:
    """What signs certificates: a key, and the certificate that says it may."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def leaf(
    authority: Authority,
    key: ec.EllipticCurvePublicKey,
    common_name: str,
    names: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    num_days: int,
) -> x509.Certificate:
    """Sign the certificate of somebody who may sign none; ends with its issuer's."""
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(
        authority.key.public_key()
    )
    latest = authority.certificate.not_valid_after_utc
    return (
        draft(named(common_name), key, num_days, latest)
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def signer(
    above: Authority | None, common_name: str, num_days: int, path_length: int
) -> Authority:
    """Make a key and a certificate that signs others.

    Args:
        above: Who signs it; None: it signs itself.
        common_name: For people.
        num_days: At most as long as `above` is good.
        path_length: How many signers may stand between it and a member.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = named(common_name)
    latest = above.certificate.not_valid_after_utc if above else None
    basic = x509.BasicConstraints(ca=True, path_length=path_length)
    builder = (
        draft(name, key.public_key(), num_days, latest)
        .issuer_name(above.certificate.subject if above else name)
        .add_extension(basic, critical=True)
        .add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
    )
    if above:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(
            above.key.public_key()
        )
        builder = builder.add_extension(issuer, critical=False)
    signing_key = above.key if above else key
    return Authority(key, builder.sign(signing_key, hashes.SHA256()))


def draft(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    num_days: int,
    latest: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    """A certificate that nobody has signed yet; good since yesterday."""
    now = datetime.datetime.now(datetime.UTC)
    end = now + num_days * DAY
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)  # a site's clock may be behind
        .not_valid_after(min(end, latest) if latest else end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def usage(*granted: str) -> x509.KeyUsage:
    """What a key may do, and nothing else."""
    return x509.KeyUsage(**{each: each in granted for each in KEY_USAGES})


def named(common_name: str) -> x509.Name:
    """A name of one part."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def uri(text: str) -> x509.GeneralName:
    """A name of ours inside a certificate: shown by every certificate viewer."""
    return x509.UniformResourceIdentifier(text)


def host_name(host: str) -> x509.GeneralName:
    """A server's name or address."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def pem_key(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    """A private key as PEM (PKCS 8), encrypted if there is a passphrase."""
    secrecy: KeySerializationEncryption = NoEncryption()
    if passphrase:
        secrecy = BestAvailableEncryption(passphrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secrecy)
