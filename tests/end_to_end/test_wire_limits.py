"""Members that send too slowly, too much, or over too many connections."""

import contextlib
import socket
import ssl
from typing import Any

import pytest

from guilder_server import edge
from guilder_shared import tls

pytestmark = pytest.mark.timeout(60)

POST = b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\n"


def opened(consortium: Any, port: int) -> ssl.SSLSocket:
    """A connection with a site's own certificate."""
    context = tls.client_context(consortium.site("alder"))
    plain = socket.create_connection(("127.0.0.1", port), 20)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def said(caller: ssl.SSLSocket) -> bytes:
    """All that the server says until it hangs up."""
    got = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := caller.recv(4096):
            got += piece
    return got


@pytest.mark.parametrize("begun", [b"", POST, POST + b"x-slow: "])
@pytest.mark.attack("a site", "slowloris: a head that never ends", "GLD-N127")
def test_a_head_that_never_ends_is_hung_up_on(
    consortium: Any, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(edge, "HEAD_S", 0.3)
    hub = consortium.hub()

    with opened(consortium, hub.port) as caller:
        caller.sendall(begun)
        answer = said(caller)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b"\r\n\r\nGLD-N127 head")


@pytest.mark.attack("a site", "slowloris: a body that stands still", "GLD-N127")
def test_a_body_that_stands_still_is_hung_up_on(
    consortium: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "PIECE_S", 0.3)
    hub = consortium.hub()

    with opened(consortium, hub.port) as caller:
        caller.sendall(POST + b"content-length: 1000\r\n\r\nhalf")
        answer = said(caller)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b"\r\n\r\nGLD-N127 body")


@pytest.mark.parametrize("size", [b"314572800", b"1048577"])
@pytest.mark.attack("a site", "an oversized body before authentication", "GLD-N122")
def test_a_body_larger_than_any_is_refused_by_its_head(
    consortium: Any, size: bytes
) -> None:
    hub = consortium.hub()

    with opened(consortium, hub.port) as caller:
        caller.sendall(POST + b"content-length: " + size + b"\r\n\r\n")
        answer = said(caller)

    assert answer.endswith(b"\r\n\r\nGLD-N122 too-large")


def test_between_two_requests_nobody_is_hurried(consortium: Any, attacker: Any) -> None:
    hub = consortium.hub()
    alder = attacker("alder", hub.port)

    for _ in range(2):
        alder.activate()
        [callers] = hub._edge._callers.values()
        assert [caller._patience for caller in callers] == [None]


def test_of_many_connections_of_one_site_the_oldest_go(
    consortium: Any, attacker: Any
) -> None:
    hub = consortium.hub()
    with contextlib.ExitStack() as held:
        many = [
            held.enter_context(opened(consortium, hub.port))
            for _ in range(edge.MOST_CONNECTIONS + 8)
        ]

        assert attacker("birch", hub.port).activate()
        assert attacker("alder", hub.port).activate()
        assert said(many[0]) == b""
        assert max(map(len, hub._edge._callers.values())) <= edge.MOST_CONNECTIONS
