"""The doctor behind a proxy: real ones, plain and by TLS, each broken in one way."""

import datetime
import functools
import ipaddress
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from guilder.doctor import network
from guilder.doctor.finding import Finding, exit_code
from guilder_client.settings import ProxyLines
from guilder_server.hub import Hub
from guilder_shared import certificates, tls

HOST = "fl.example.test"  # no such name exists: only the proxy knows the way


class Way:
    """A server that only a proxy knows, the proxy's own keys, and one site's keys."""

    def __init__(self, folder: Path, connect_proxy: Any) -> None:
        self.folder = folder
        certificates.init_local_sites(folder, ["alder"], [HOST, "127.0.0.1"])
        self.hub = self.server(folder)
        certificates.init_local_sites(folder / "it", ["x"], ["127.0.0.1"])
        self.tls_keys = folder / "it" / "server"
        self.start = functools.partial(connect_proxy, HOST)
        self.password = folder / "proxy.password"
        self.password.write_text("s3cret\n")
        self.password.chmod(0o600)

    def server(self, folder: Path) -> Hub:
        roster = certificates.roster(folder / "server" / "sites")
        keys = {name: site.node_key for name, site in roster.items()}
        hub = Hub(("127.0.0.1", 0), tls.server_context(folder / "server"), keys)
        hub.start()
        return hub

    def proxy(self, scheme: str, target: int | None = None) -> Any:
        """A proxy that speaks TLS, or not."""
        keys = self.tls_keys if scheme == "https" else None
        return self.start(target or self.hub.port, tls_keys=keys)

    def lines(self, scheme: str, proxy: Any, **changes: Any) -> ProxyLines:
        given: dict[str, Any] = {"url": f"{scheme}://127.0.0.1:{proxy.port}"}
        given |= {"user": "ward-3", "password": self.password}
        if scheme == "https":
            given["authority"] = self.tls_keys / "ca.pem"
        return ProxyLines(**given | changes)

    def look(
        self, proxy: ProxyLines | None, host: str = HOST, patience_s: float = 30.0
    ) -> list[Finding]:
        own = tls.KeyFiles.in_folder(self.folder / "sites" / "alder", "site")
        url = f"https://{host}:{self.hub.port}"
        found = network.check(url, own, proxy=proxy, patience_s=patience_s)
        assert all("s3cret" not in str(each) for each in found)
        return found


@pytest.fixture
def way(tmp_path: Path, connect_proxy: Any) -> Iterator[Way]:
    made = Way(tmp_path, connect_proxy)
    yield made
    made.hub.stop()


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def last(found: list[Finding]) -> tuple[str, str, int]:
    assert all(each.why and each.fix for each in found if each.state != "ok")
    assert all(each.state == "ok" for each in found[:-1]), found
    return found[-1].id, found[-1].state, exit_code(found)


def test_what_lies_behind_a_proxy_is_tried(way: Way, scheme: str) -> None:
    proxy = way.proxy(scheme)

    found = way.look(way.lines(scheme, proxy))

    assert last(found) == ("", "ok", 0)
    told = [each.what.split(":")[0] for each in found]
    to_proxy = ["TLSv1.3 to the proxy 127.0.0.1"] if scheme == "https" else []
    assert told[2:-1] == [*to_proxy, "the proxy 127.0.0.1", f"TLSv1.3 to {HOST}"]
    assert found[-1].part == "time"
    assert proxy.asked == [f"CONNECT {HOST}:{way.hub.port} HTTP/1.1"]


def test_inspection_behind_a_proxy_is_named_by_its_issuer(
    way: Way, scheme: str, tmp_path: Path
) -> None:
    """As TLS inspection looks: behind CONNECT stands another authority."""
    certificates.init_local_sites(tmp_path / "between", ["alder"], [HOST])
    between = way.server(tmp_path / "between")

    found = way.look(way.lines(scheme, way.proxy(scheme, between.port)))

    between.stop()
    assert last(found) == ("GLD-N093", "wrong", 3)
    assert "CN=" in found[-1].what
    assert "inspection" in found[-1].fix


@pytest.mark.parametrize("sent", ["nothing", "another password"])
def test_a_proxy_that_wants_another_login_is_407(
    way: Way, scheme: str, sent: str
) -> None:
    proxy = way.proxy(scheme)
    none: dict[str, Any] = {"user": None, "password": None}
    changed = {"user": "ward-4"} if sent != "nothing" else none

    found = way.look(way.lines(scheme, proxy, **changed))

    assert last(found) == ("GLD-N100", "wrong", 3)
    assert "407" in found[-1].what
    assert ("none was sent" in found[-1].why) == (sent == "nothing")


def test_a_proxy_that_refuses_the_address_is_403(
    way: Way, scheme: str, tmp_path: Path
) -> None:
    found = way.look(way.lines(scheme, way.proxy(scheme)), host="elsewhere.test")

    assert last(found) == ("GLD-N095", "wrong", 3)
    assert "403" in found[-1].what
    assert f"CONNECT to elsewhere.test:{way.hub.port}" in found[-1].fix


def test_a_proxy_of_another_authority_is_not_trusted_and_told_no_login(
    way: Way,
) -> None:
    proxy = way.proxy("https")
    others = way.folder / "server" / "ca.pem"

    named = way.look(way.lines("https", proxy, authority=others))
    unnamed = way.look(way.lines("https", proxy, authority=None))

    for found in (named, unnamed):
        assert last(found) == ("GLD-N130", "wrong", 3)
        assert "[proxy] authority" in found[-1].fix
    assert proxy.asked == []


def test_a_proxy_by_another_name_than_its_certificates_is_not_trusted(
    way: Way, tmp_path: Path
) -> None:
    way.tls_keys = signed_by_itself(way.tls_keys, tmp_path / "named", name=HOST)
    proxy = way.proxy("https")

    found = way.look(way.lines("https", proxy))

    assert last(found) == ("GLD-N130", "wrong", 3)
    assert "otherwise than its certificate" in found[-1].why
    assert proxy.asked == []


def test_a_proxy_whose_certificate_has_run_out_is_not_trusted(
    way: Way, tmp_path: Path
) -> None:
    way.tls_keys = signed_by_itself(way.tls_keys, tmp_path / "ended", days=-1)
    proxy = way.proxy("https")

    found = way.look(way.lines("https", proxy))

    assert last(found) == ("GLD-N130", "wrong", 3)
    assert "renewed" in found[-1].why
    assert proxy.asked == []


def signed_by_itself(
    keys: Path, folder: Path, *, name: str = "", days: int = 1
) -> Path:
    """The same keys with a certificate for 127.0.0.1 or a name, and some days."""
    shutil.copytree(keys, folder)
    old = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    key: Any = load_pem_private_key((folder / "server.key").read_bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    alternative = x509.SubjectAlternativeName([x509.DNSName(name) if name else here])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.subject)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    for each in ("server.pem", "ca.pem"):
        (folder / each).write_bytes(pem)
    return folder


def test_an_authority_that_is_no_certificate_is_named(way: Way) -> None:
    lines = way.lines("https", way.proxy("https"), authority=way.password)

    assert last(way.look(lines)) == ("GLD-E001", "wrong", 3)


def test_https_to_a_proxy_without_tls_is_told(way: Way) -> None:
    lines = way.lines("https", way.proxy("http"))

    found = way.look(lines, patience_s=1.0)  # that proxy waits for more

    assert last(found) == ("GLD-N131", "wrong", 3)
    assert "http:// instead" in found[-1].fix


def test_http_to_a_proxy_with_tls_is_told(way: Way) -> None:
    found = way.look(way.lines("http", way.proxy("https")))

    assert last(found) == ("GLD-N132", "wrong", 3)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
def test_the_proxy_of_the_environment_is_the_clients(
    way: Way, scheme: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = way.proxy(scheme)
    monkeypatch.setenv("SSL_CERT_FILE", str(way.tls_keys / "ca.pem"))
    monkeypatch.setenv(name, f"{scheme}://ward-3:s3cret@127.0.0.1:{proxy.port}")

    assert last(way.look(None)) == ("", "ok", 0)
    assert len(proxy.asked) == 1


def test_a_proxy_without_a_scheme_is_plain(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = way.proxy("http")
    monkeypatch.setenv("HTTPS_PROXY", f"ward-3:s3cret@127.0.0.1:{proxy.port}")

    assert last(way.look(None)) == ("", "ok", 0)


def test_the_proxy_of_the_site_file_counts_more_than_the_environment(
    way: Way, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    lines = way.lines(scheme, way.proxy(scheme))

    found = way.look(lines)
    way.password.chmod(0o644)
    refused = way.look(lines)

    assert last(found) == ("", "ok", 0)
    assert last(refused) == ("GLD-E002", "wrong", 3)
