"""One port for work and control, with real TLS sockets and callers that mean harm."""

import contextlib
import functools
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guilder_server import front, relays
from guilder_server.control import ControlServer
from guilder_server.hub import Hub
from guilder_shared import certificates, tls
from guilder_shared.errors import EnrolmentError, NetworkError

pytestmark = pytest.mark.timeout(60)


class Server:
    """Hub and control channel behind one port, as the resident server starts them."""

    def __init__(self, place: Any) -> None:
        self.folder, self.site, self.runs = place.folder, place.site, place.runs
        self.control: ControlServer = place.server
        roster = certificates.roster(self.folder / "sites")
        keys = {name: site.node_key for name, site in roster.items()}
        self.hub = Hub(("127.0.0.1", 0), tls.server_context(self.folder), keys)
        self.hub.relays = place.relays
        self.hub.start({b"h2": ("127.0.0.1", self.control.port)})
        self.operator = functools.partial(place.client, port=self.hub.port)

    def call(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.hub.port), timeout=10)

    def work(self) -> bytes:
        """The status line of a request to the work listener."""
        context = tls.client_context(self.site)
        with (
            self.call() as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"POST /nothing HTTP/1.1\r\nhost: x\r\n\r\n")
            return secure.recv(12)


def is_hung_up_on(caller: socket.socket) -> bool:
    """Whether the server ends the connection without a word."""
    try:
        return caller.recv(1) == b""
    except ConnectionResetError:  # it left unread what was sent
        return True


@pytest.fixture
def server(place: Any) -> Iterator[Server]:
    server = Server(place)
    yield server
    server.hub.stop()


def test_work_and_control_come_by_one_port(server: Server) -> None:
    with server.operator() as operator:
        assert operator.list() == [{"run_id": "run-1", "state": "running"}]
        assert operator.submit(b"{}") == "run-1"

    assert server.work() == b"HTTP/1.1 404"


def test_a_site_is_no_operator_behind_one_port_either(server: Server) -> None:
    keys = {"key": server.site / "site.key", "certificate": server.site / "site.pem"}

    with server.operator(**keys) as site, pytest.raises(EnrolmentError) as caught:
        site.list()

    assert caught.value.error_id == "GLD-E030"


def test_tls_stays_between_caller_and_control(server: Server, tmp_path: Path) -> None:
    certificates.init_local_sites(tmp_path / "other", ["bank-a"], ["localhost"])
    authority = tmp_path / "other" / "server" / "ca.pem"

    with (
        server.operator(authority=authority) as stranger,
        pytest.raises(NetworkError) as caught,
    ):
        stranger.list()

    assert caught.value.error_id == "GLD-N051"


def test_a_watch_goes_on_while_work_is_done(server: Server) -> None:
    server.runs.events = [{"n": n, "text": "x" * 9_000} for n in range(500)]
    with server.operator() as operator:
        watch = operator.watch("run-1")
        first = next(watch)
        assert server.work() == b"HTTP/1.1 404"
        server.runs.more.put(None)
        rest = list(watch)

    assert [first, *rest] == server.runs.events  # 4.5 MB, whole and in order


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 40, b""])
def test_who_speaks_no_tls_is_hung_up_on(server: Server, text: bytes) -> None:
    with server.call() as caller:
        caller.sendall(text)
        if not text:
            caller.shutdown(socket.SHUT_WR)

        assert is_hung_up_on(caller)

    assert server.work() == b"HTTP/1.1 404"


def test_a_hello_in_pieces_is_waited_for(server: Server) -> None:
    context, sent, got = (
        tls.client_context(server.site),
        ssl.MemoryBIO(),
        ssl.MemoryBIO(),
    )
    client = context.wrap_bio(got, sent, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = sent.read()
    with server.call() as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(hello), 200):
            caller.sendall(hello[start : start + 200])
            time.sleep(0.05)

        assert caller.recv(1) == b"\x16"  # the server's half of the handshake


def test_silent_callers_keep_nobody_out(server: Server) -> None:
    silent = [server.call() for _ in range(front.MOST_SILENT + 50)]
    try:
        assert server.work() == b"HTTP/1.1 404"
        with server.operator() as operator:
            assert operator.list()
        assert is_hung_up_on(silent[0])  # the oldest had to go
    finally:
        for caller in silent:
            caller.close()


def test_a_caller_that_never_says_hello_is_hung_up_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "HELLO_S", 0.2)

    with server.call() as caller:
        caller.sendall(b"\x16")

        assert is_hung_up_on(caller)


def test_when_control_ends_its_callers_are_told(server: Server) -> None:
    with server.operator() as operator:
        assert operator.list()
        server.control.stop()

        with pytest.raises(NetworkError):
            operator.list()

    assert server.work() == b"HTTP/1.1 404"


def test_callers_without_a_certificate_take_no_members_place(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "MOST_UNKNOWN", 3)
    context, hello = tls.client_context(server.site), ssl.MemoryBIO()
    context.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
    first_message = hello.read()
    with server.operator() as operator, contextlib.ExitStack() as crowd:
        watch = operator.watch("run-1")
        server.runs.more.put({"n": 1})
        first = next(watch)
        callers = [crowd.enter_context(server.call()) for _ in range(8)]
        for caller in callers:
            caller.sendall(first_message)

        with contextlib.suppress(ConnectionResetError):
            while callers[0].recv(4096):  # ends: the oldest of those that are nobody
                pass
        server.runs.more.put(None)
        rest = list(watch)

    assert [first, *rest] == [{"n": 1}]  # who was known before stays
