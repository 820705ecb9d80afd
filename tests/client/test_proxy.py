"""A site behind its institution's proxy: CONNECT, passwords, the proxy's own TLS."""

import contextlib
import functools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guilder_client.node import Node
from guilder_client.settings import ProxyLines
from guilder_server.hub import Hub
from guilder_shared import certificates, tls
from guilder_shared.errors import EnrolmentError, NetworkError

pytestmark = pytest.mark.timeout(60)
HOST = "fl.example.test"  # no such name exists: only the proxy knows the way


class Place:
    """A server that is reached by name through the proxy, and one site's keys."""

    def __init__(self, folder: Path, connect_proxy: Any) -> None:
        certificates.init_local_sites(folder, ["alder"], [HOST, "127.0.0.1"])
        self.site = folder / "sites" / "alder"
        roster = certificates.roster(folder / "server" / "sites")
        keys = {name: site.node_key for name, site in roster.items()}
        self.hub = Hub(("127.0.0.1", 0), tls.server_context(folder / "server"), keys)
        self.hub.start()
        self.start_proxy = functools.partial(connect_proxy, HOST)
        self.proxy = self.start_proxy(self.hub.port)
        self.online = threading.Event()
        self.password = folder / "proxy.password"
        self.password.write_text("s3cret\n")
        self.password.chmod(0o600)

    def lines(self, **changes: Any) -> ProxyLines:
        given: dict[str, Any] = {
            "url": f"http://127.0.0.1:{self.proxy.port}",
            "user": "ward-3",
            "password": self.password,
        }
        return ProxyLines(**given | changes)

    def node(self, proxy: ProxyLines | None, host: str = HOST) -> Node:
        url = f"https://{host}:{self.hub.port}"
        return Node(url, self.site, _app(), {}, proxy=proxy, on_online=self.online.set)

    def is_served(self, node: Node) -> bool:
        stop = threading.Event()
        thread = threading.Thread(target=node.run_forever, args=(stop,), daemon=True)
        thread.start()
        try:
            return self.online.wait(20)
        finally:
            stop.set()
            thread.join(10)


def _app() -> Any:
    from flwr.clientapp import ClientApp

    return ClientApp()


@pytest.fixture
def place(tmp_path: Path, connect_proxy: Any) -> Iterator[Place]:
    place = Place(tmp_path, connect_proxy)
    yield place
    place.hub.stop()


def test_a_site_comes_online_through_a_proxy_with_a_password(place: Place) -> None:
    assert place.is_served(place.node(place.lines()))

    assert set(place.proxy.asked) == {f"CONNECT {HOST}:{place.hub.port} HTTP/1.1"}


def test_a_proxy_of_the_environment_counts_if_none_is_written(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://ward-3:s3cret@127.0.0.1:{place.proxy.port}"
    monkeypatch.setenv("HTTPS_PROXY", url)

    assert place.is_served(place.node(None))

    assert place.proxy.asked


def test_no_proxy_is_asked_on_the_way_to_this_machine(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{place.proxy.port}")

    assert place.is_served(place.node(place.lines(), host="127.0.0.1"))

    assert place.proxy.asked == []


@pytest.mark.parametrize("changes", [{"user": None, "password": None}, {"user": "x"}])
def test_a_wrong_password_is_told_and_not_tried_for_ever(
    place: Place, changes: dict[str, Any]
) -> None:
    node = place.node(place.lines(**changes))

    with pytest.raises(NetworkError) as caught:
        node.run_forever(threading.Event())

    assert caught.value.error_id == "GLD-N100"
    assert "s3cret" not in str(caught.value)


def test_a_password_that_others_can_read_is_refused(place: Place) -> None:
    place.password.chmod(0o644)

    with pytest.raises(EnrolmentError) as caught:
        place.node(place.lines())

    assert caught.value.error_id == "GLD-E002"


def test_a_proxy_may_speak_tls_with_an_authority_of_its_institution(
    place: Place, tmp_path: Path
) -> None:
    other = tmp_path / "institution"
    certificates.init_local_sites(other, ["x"], ["127.0.0.1"])
    place.proxy = place.start_proxy(place.hub.port, tls_keys=other / "server")
    url = f"https://127.0.0.1:{place.proxy.port}"
    lines = place.lines(url=url, authority=other / "server" / "ca.pem")

    assert place.is_served(place.node(lines))


def test_a_proxy_of_another_authority_gets_no_password(
    place: Place, tmp_path: Path
) -> None:
    other = tmp_path / "institution"
    certificates.init_local_sites(other, ["x"], ["127.0.0.1"])
    place.proxy = place.start_proxy(place.hub.port, tls_keys=other / "server")
    url = f"https://127.0.0.1:{place.proxy.port}"
    lines = place.lines(url=url, authority=place.site / "ca.pem")

    with pytest.raises(EnrolmentError):
        place.node(lines).run_forever(threading.Event())

    assert place.proxy.asked == []


def test_a_proxy_that_inspects_tls_is_not_the_server(
    place: Place, tmp_path: Path
) -> None:
    other = tmp_path / "inspector"
    certificates.init_local_sites(other, ["alder"], [HOST])
    inspector = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inspector.load_cert_chain(other / "server/server.pem", other / "server/server.key")
    listening = socket.create_server(("127.0.0.1", 0))

    def inspect() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listening.accept()
                inspector.wrap_socket(plain, server_side=True)

    threading.Thread(target=inspect, daemon=True).start()
    place.proxy = place.start_proxy(listening.getsockname()[1])

    with pytest.raises(EnrolmentError) as caught:
        place.node(place.lines()).run_forever(threading.Event())

    listening.close()
    assert caught.value.error_id == "GLD-E012"


def test_what_the_proxy_says_stands_in_the_log(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "guilder.node")
    url = "https://other.test:1"
    stop = threading.Event()
    node = Node(url, place.site, _app(), {}, proxy=place.lines())
    thread = threading.Thread(target=node.run_forever, args=(stop,), daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while "ProxyError (403 Forbidden)" not in caplog.text:
        assert time.monotonic() < end, caplog.text
        time.sleep(0.01)
    stop.set()
    thread.join(10)
