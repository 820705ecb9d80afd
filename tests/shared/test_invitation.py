"""Tokens and requests from strangers, and the authority's keys at rest."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from guilder_shared import authority, drafts
from guilder_shared.errors import EnrolmentError
from guilder_shared.invitation import Token


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(EnrolmentError) as caught:
        act()
    return caught.value.error_id


@functools.cache
def requests_that_are_none() -> dict[str, bytes]:
    rsa_key = rsa.generate_private_key(65537, 2048)
    name = drafts.named("bank-a")
    other_curve = ec.generate_private_key(ec.SECP384R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    key = ec.generate_private_key(ec.SECP256R1())
    good = authority.make_request(key, "bank-a", "ab" * 32)
    der = bytearray(x509.load_pem_x509_csr(good).public_bytes(Encoding.DER))
    der[-5] ^= 1  # its signature fits no more
    broken = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    return {
        "empty": b"",
        "noise": b"\x00\xff" * 500,
        "huge": good + b"\n" * 20_000,
        "rsa": builder.sign(rsa_key, hashes.SHA256()).public_bytes(Encoding.PEM),
        "p384": builder.sign(other_curve, hashes.SHA256()).public_bytes(Encoding.PEM),
        "another's signature": broken,
        "no names": builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM),
    }


@pytest.mark.parametrize("kind", list(requests_that_are_none()))
def test_what_is_no_request_is_refused(kind: str) -> None:
    bad = requests_that_are_none()[kind]

    assert refused(lambda: authority.read_request(bad)) == "GLD-E056"


def test_an_encrypted_issuing_key_needs_its_passphrase(tmp_path: Path) -> None:
    authority.make_authority(tmp_path, ["localhost"], b"correct horse")
    files = (tmp_path / "issuing.key", tmp_path / "issuing.pem")

    missing = refused(lambda: authority.load_issuing(*files, None))
    wrong = refused(lambda: authority.load_issuing(*files, b"battery staple"))

    assert missing == wrong == "GLD-E062"
    assert b"ENCRYPTED" in (tmp_path / "root.key").read_bytes()
    assert authority.load_issuing(*files, b"correct horse").key


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1],
        lambda text: text[1:],
        lambda text: text.replace("fl.example.org", "evil.example"),
        lambda text: text.replace("/bank-a/", "/../"),
        lambda text: text.replace("/site/", "/root/"),
        lambda text: text * 20,
        lambda _text: "",
        lambda _text: "guilder1///////",
        lambda _text: "é/" * 8,
    ],
)
def test_a_token_not_copied_whole_is_no_token(spoil: Callable[[str], str]) -> None:
    token = Token.make(
        "fl.example.org", 9443, role="site", name="bank-a", pin="ab" * 32
    )
    text = token.text()

    assert Token.parse(f"  {text}\n").text() == text
    assert refused(lambda: Token.parse(spoil(text))) == "GLD-E050"
