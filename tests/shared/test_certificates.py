"""Certificates: what they bind, who may read them, what TLS makes of them."""

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from guilder_shared import certificates, tls
from guilder_shared.errors import EnrolmentError
from guilder_shared.identity import SigningKey


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    certificates.init_local_sites(tmp_path / "c", ["alder", "birch"], ["fl.example"])
    return tmp_path / "c"


def test_every_private_key_can_be_read_by_its_owner_alone(folder: Path) -> None:
    keys = sorted(folder.rglob("*.key"))

    assert len(keys) == 7  # authority, server, operator; TLS and signing for two sites
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


def test_the_server_holds_no_sites_private_key(folder: Path) -> None:
    names = {path.name for path in (folder / "server").rglob("*.key")}

    assert names == {"authority.key", "server.key", "operator.key"}


def test_a_sites_certificate_binds_its_name_and_both_its_keys(folder: Path) -> None:
    site = certificates.roster(folder / "server" / "sites")["alder"]
    signing = SigningKey.load(folder / "sites" / "alder" / "signing.key")
    shown = certificates.load_certificate(folder / "sites" / "alder" / "site.pem")

    assert site.name == "alder"
    assert site.signing_hex == signing.public_hex
    assert site.node_key == certificates.public_pem(shown)


def test_server_and_site_shake_hands_under_strict_checking(folder: Path) -> None:
    server = tls.server_context(folder / "server")
    client = tls.client_context(folder / "sites" / "alder")
    assert server.verify_flags & client.verify_flags & ssl.VERIFY_X509_STRICT

    shown = shake_hands(server, client, "fl.example")

    assert shown == "TLSv1.3"


def test_a_server_under_another_name_is_not_believed(folder: Path) -> None:
    server = tls.server_context(folder / "server")
    client = tls.client_context(folder / "sites" / "alder")

    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client, "evil.example")


def test_a_site_cannot_play_the_server(folder: Path) -> None:
    keys = folder / "sites" / "birch"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(keys / "site.pem", keys / "site.key")
    client = tls.client_context(folder / "sites" / "alder")

    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client, "birch")


def test_a_certificate_beside_anothers_key_is_refused(folder: Path) -> None:
    mixed, other = folder / "sites" / "alder", folder / "sites" / "birch"
    (mixed / "site.pem").write_bytes((other / "site.pem").read_bytes())

    with pytest.raises(EnrolmentError) as caught:
        tls.client_context(mixed)

    assert caught.value.error_id == "GLD-E009"


def test_a_key_that_others_may_read_does_not_go_online(folder: Path) -> None:
    (folder / "sites" / "alder" / "site.key").chmod(0o644)

    with pytest.raises(EnrolmentError) as caught:
        tls.client_context(folder / "sites" / "alder")

    assert caught.value.error_id == "GLD-E002"


@pytest.mark.parametrize(
    "name", ["", "Alder", "a b", "../x", "a" * 64, "role:operator", "-a", "é"]
)
def test_a_name_that_is_none_is_refused_before_a_file_is_made(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(EnrolmentError) as caught:
        certificates.init_local_sites(tmp_path / "c", ["alder", name])

    assert caught.value.error_id == "GLD-E005"
    assert not (tmp_path / "c").exists()


def test_two_sites_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EnrolmentError, match="twice"):
        certificates.init_local_sites(tmp_path / "c", ["alder", "alder"])


def test_a_second_init_in_the_same_folder_destroys_nothing(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    with pytest.raises(EnrolmentError):
        certificates.init_local_sites(folder, ["alder", "birch"])

    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_a_roster_file_of_another_site_is_refused(folder: Path) -> None:
    sites = folder / "server" / "sites"
    (sites / "birch.pem").write_bytes((sites / "alder.pem").read_bytes())

    with pytest.raises(EnrolmentError) as caught:
        certificates.roster(folder / "server" / "sites")

    assert caught.value.error_id == "GLD-E007"


def test_an_operator_in_the_roster_is_refused(folder: Path) -> None:
    server = folder / "server"
    (server / "sites" / "operator.pem").write_bytes(
        (server / "operator.pem").read_bytes()
    )

    with pytest.raises(EnrolmentError) as caught:
        certificates.roster(server / "sites")

    assert caught.value.error_id == "GLD-E007"


def test_a_missing_certificate_is_named(folder: Path) -> None:
    (folder / "sites" / "alder" / "ca.pem").unlink()

    with pytest.raises(EnrolmentError, match=r"ca\.pem") as caught:
        tls.client_context(folder / "sites" / "alder")

    assert caught.value.error_id == "GLD-E006"


def test_the_authority_signs_certificates_and_nothing_below_it_may(
    folder: Path,
) -> None:
    def is_authority(path: str) -> bool:
        certificate = certificates.load_certificate(folder / path)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        return basic.value.ca

    assert is_authority("server/ca.pem")
    assert not is_authority("server/server.pem")
    assert not is_authority("sites/alder/site.pem")


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str:
    """Do a TLS handshake in memory; the version agreed on."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.wrap_bio(to_server, to_client, server_side=True)
    two = client.wrap_bio(to_client, to_server, server_hostname=host)
    for _ in range(4):
        for side in (two, one):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    one.do_handshake()
    return two.version() or ""
