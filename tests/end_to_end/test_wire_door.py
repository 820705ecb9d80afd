"""Who may speak to the hub at all, and of what: real TLS, real sockets."""

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from guilder_client.node import Node
from guilder_server import diagnosis
from guilder_shared import certificates, tls
from guilder_shared.errors import EnrolmentError

pytestmark = pytest.mark.timeout(60)

FLEET = "/v1/fleet/"


def shake_hands(port: int, context: ssl.SSLContext) -> None:
    url = f"https://127.0.0.1:{port}{FLEET}pull-messages"
    with httpx.Client(verify=context, trust_env=False, timeout=5) as client:
        client.post(url, content=b"").raise_for_status()


def test_a_caller_without_a_certificate_is_refused_by_tls(consortium: Any) -> None:
    hub = consortium.hub()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(consortium.folder / "server" / "ca.pem")

    with pytest.raises(httpx.TransportError):
        shake_hands(hub.port, context)


def test_a_caller_with_an_older_tls_is_refused(consortium: Any, refused: Any) -> None:
    hub = consortium.hub()
    context = tls.client_context(consortium.site("alder"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises(httpx.TransportError):
        shake_hands(hub.port, context)


@pytest.mark.attack(
    "a stranger", "a site's certificate of another authority", "GLD-E014"
)
def test_a_certificate_of_another_authority_is_refused(
    consortium: Any,
    eventually: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = consortium.hub()
    certificates.init_local_sites(tmp_path / "other", ["alder"], ["127.0.0.1"])
    keys = tmp_path / "other" / "sites" / "alder"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(consortium.site("alder") / "ca.pem")
    context.load_cert_chain(keys / "site.pem", keys / "site.key")

    with pytest.raises(httpx.TransportError):
        shake_hands(hub.port, context)

    eventually(lambda: "GLD-E014" in caplog.text)
    assert "unable to get local issuer" in caplog.text


def test_a_site_with_a_certificate_of_another_authority_is_told_so(
    consortium: Any, tmp_path: Path
) -> None:
    certificates.init_local_sites(tmp_path / "other", ["alder"], ["127.0.0.1"])
    keys = tmp_path / "other" / "sites" / "alder"
    (keys / "ca.pem").write_bytes((consortium.site("alder") / "ca.pem").read_bytes())

    with pytest.raises(EnrolmentError) as caught:
        Node("https://127.0.0.1:1", keys, ClientApp(), {})

    assert caught.value.error_id == "GLD-E011"


@pytest.mark.attack(
    "a server", "another authority's server calls a site's client its own", "GLD-E012"
)
def test_a_node_does_not_speak_to_a_server_of_another_consortium(
    consortium: Any, tmp_path: Path
) -> None:
    hub = consortium.hub()
    certificates.init_local_sites(tmp_path / "other", ["alder"], ["127.0.0.1"])
    keys = tmp_path / "other" / "sites" / "alder"
    node = Node(f"https://127.0.0.1:{hub.port}", keys, ClientApp(), {})

    with pytest.raises(EnrolmentError) as caught:
        node.run_forever(threading.Event())

    assert caught.value.error_id == "GLD-E012"


RAN_OUT, NOT_YET = (-9, -1), (1, 9)  # days from now


def renew(folder: Path, path: Path, days: tuple[int, int] = RAN_OUT) -> None:
    """Put one that is good on other days in the place of a certificate."""
    authority = certificates.load_authority(folder / "server")
    old = certificates.load_certificate(path)
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * day)
        .not_valid_after(now + days[1] * day)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    certificate = builder.sign(authority.key, hashes.SHA256())
    pem = certificate.public_bytes(Encoding.PEM)
    path.write_bytes(pem)


@pytest.mark.attack("a site", "an expired certificate", "GLD-E014")
def test_an_expired_certificate_is_refused_by_the_server(
    consortium: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hub = consortium.hub()
    keys = consortium.site("alder")
    renew(consortium.folder, keys / "site.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(keys / "ca.pem")
    context.load_cert_chain(keys / "site.pem", keys / "site.key")

    with pytest.raises(httpx.TransportError):
        shake_hands(hub.port, context)

    eventually(lambda: "GLD-E014" in caplog.text)
    assert "certificate has expired, by this machine's clock, which says" in caplog.text


def test_a_site_with_an_expired_certificate_is_told_both_dates(
    consortium: Any,
) -> None:
    keys = consortium.site("alder")
    renew(consortium.folder, keys / "site.pem")

    with pytest.raises(
        EnrolmentError, match=r"site\.pem is good from .* to "
    ) as caught:
        Node("https://127.0.0.1:1", keys, ClientApp(), {})

    assert caught.value.error_id == "GLD-E008"


@pytest.fixture
def outspoken(consortium: Any) -> Iterator[int]:
    """A server that says by a TLS alert why it takes no certificate; its port."""
    context = tls.server_context(consortium.folder / "server")
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(plain: socket.socket) -> None:
        caller = context.wrap_socket(
            plain, server_side=True, do_handshake_on_connect=False
        )
        with contextlib.suppress(ssl.SSLError):
            caller.do_handshake()
        with socket.socket(fileno=caller.detach()) as left:
            while left.recv(65536):  # else its words would be cut off with ours
                pass

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                answer(listener.accept()[0])

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


@pytest.mark.parametrize("days", [RAN_OUT, NOT_YET])
def test_a_site_that_is_refused_by_the_servers_clock_is_told_of_both_clocks(
    consortium: Any, outspoken: int, days: tuple[int, int]
) -> None:
    keys = consortium.site("alder")
    node = Node(f"https://127.0.0.1:{outspoken}", keys, ClientApp(), {})
    renew(consortium.folder, keys / "site.pem", days)
    node.show_anew()  # as one that was good when the client started

    with pytest.raises(EnrolmentError) as caught:
        node.run_forever(threading.Event())

    assert caught.value.error_id == "GLD-E014"
    assert "this machine says 20" in caught.value.why
    assert "clocks of both machines" in caught.value.fix


@pytest.mark.parametrize("days", [RAN_OUT, NOT_YET])
@pytest.mark.parametrize("server", ["outspoken", "hub"])
def test_an_operator_who_is_refused_by_the_servers_clock_is_told_of_both_clocks(
    consortium: Any, outspoken: int, server: str, days: tuple[int, int]
) -> None:
    port = outspoken if server == "outspoken" else consortium.hub().port
    keys = consortium.folder / "server"
    names = [keys / name for name in ("operator.key", "operator.pem", "ca.pem")]
    context = diagnosis.operator_context(*names)
    renew(consortium.folder, keys / "operator.pem", days)
    context.load_cert_chain(keys / "operator.pem", keys / "operator.key")

    error = diagnosis.unreachable("127.0.0.1", port, context)

    assert error.error_id == "GLD-N052"
    assert "this machine says 20" in error.why
    assert "clocks of both machines" in error.fix


@pytest.mark.attack("an operator", "taking part as a site", "GLD-N126")
def test_an_operator_is_no_site(consortium: Any, refused: Any) -> None:
    hub = consortium.hub()
    context = tls.client_context(consortium.folder / "server", "operator")

    with refused("GLD-N126"):
        shake_hands(hub.port, context)


@pytest.mark.attack("a site", "a request without its header", "GLD-N121")
def test_a_request_without_node_header_is_refused(
    consortium: Any, refused: Any
) -> None:
    hub = consortium.hub()

    with refused("GLD-N121"):
        shake_hands(hub.port, tls.client_context(consortium.site("alder")))


@pytest.mark.attack("a site", "a header kept for an hour", "GLD-N121")
def test_a_header_signed_an_hour_ago_is_refused(
    consortium: Any, attacker: Any, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    header: Any = import_module("flwr.supernode.node_auth_http_interceptor")
    real = header.now
    monkeypatch.setattr(header, "now", lambda: real() - datetime.timedelta(hours=1))
    hub = consortium.hub()

    with refused("GLD-N121"):
        attacker("alder", hub.port).activate()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/v1/control/start-run",
        "/v1/control/list-nodes",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/runtime/push-messages",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/get-fab",
        "/v1/fleet/get-run",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/pull-messages?x=1",
    ],
)
@pytest.mark.attack(
    "a site",
    "Flower's own doors: registering, starting runs, fetching a bundle",
    "GLD-N124",
)
def test_no_other_path_exists(consortium: Any, attacker: Any, path: str) -> None:
    hub = consortium.hub()
    alder = attacker("alder", hub.port)

    with httpx.Client(verify=alder.tls, trust_env=False) as client:
        request = client.build_request("POST", alder.url, content=b"")
        request.url = request.url.copy_with(raw_path=path.encode())
        answer = client.send(request)

    assert (answer.status_code, answer.content) == (404, b"GLD-N124 no-such-path")


def test_only_post_is_spoken(consortium: Any, attacker: Any) -> None:
    hub = consortium.hub()
    alder = attacker("alder", hub.port)

    with httpx.Client(verify=alder.tls, trust_env=False) as client:
        answer = client.get(f"{alder.url}{FLEET}pull-messages")

    assert answer.status_code == 404


@pytest.mark.parametrize("body", [b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x0f", b""])
@pytest.mark.parametrize("path", ["push-messages", "push-object", "activate-node"])
@pytest.mark.attack("a site", "noise in place of a request", "GLD-N125")
def test_bytes_that_are_no_request_are_refused_and_the_hub_goes_on(
    consortium: Any, attacker: Any, path: str, body: bytes
) -> None:
    hub = consortium.hub()
    alder = attacker("alder", hub.port)

    with httpx.Client(verify=alder.tls, trust_env=False) as client:
        answer = client.post(f"{alder.url}{FLEET}{path}", content=body)

    unread = "GLD-N122" if path == "push-object" else "GLD-N125"  # nothing announced
    assert answer.text.split(" ")[0] == (unread if body else "GLD-N121")
    assert alder.activate()


def test_inflating_is_by_flowers_own_names_only() -> None:
    head = b"os.system  5\0id;id"

    with pytest.raises(Exception, match=r"os\.system"):
        inflate_object_from_contents("a", {"a": head})
