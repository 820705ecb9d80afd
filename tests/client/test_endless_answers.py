"""A server that answers without end, or with little that unpacks to much."""

import gzip
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from flwr.proto import fleet_pb2

from guilder_client import outbound
from guilder_client.calls import Calls
from guilder_shared import certificates, tls

MIB = 1024 * 1024


class Endless(http.server.BaseHTTPRequestHandler):
    """Answers as the test says, and counts what it could send."""

    protocol_version = "HTTP/1.1"
    head: dict[str, str]
    piece: bytes
    sent = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        for name, value in self.head.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for _ in range(300):
                self.wfile.write(self.piece)
                type(self).sent += len(self.piece)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(consortium: Any) -> Iterator[tuple[str, type[Endless]]]:
    class Handler(Endless):
        pass

    keys = consortium.folder / "server"
    context = tls.server_context(
        tls.KeyFiles(keys / "server.key", keys / "server.pem", keys / "ca.pem")
    )
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listener.server_port}", Handler
    listener.shutdown()
    listener.server_close()


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        ({"content-length": str(300 * MIB)}, bytes(MIB)),
        ({"transfer-encoding": "chunked"}, b"100000\r\n" + bytes(MIB) + b"\r\n"),
        ({}, bytes(MIB)),
        ({"content-length": "1" * 50}, bytes(MIB)),
        (
            {"content-encoding": "gzip", "content-length": "300000"},
            gzip.compress(bytes(MIB)).ljust(1000, b"\0"),
        ),
    ],
    ids=["announced", "chunked", "until-closed", "more-than-there-is", "bomb"],
)
@pytest.mark.attack(
    "a server", "an answer without end, or a compressed bomb", "GLD-N128"
)
def test_an_answer_without_end_is_refused_by_its_head(
    consortium: Any,
    server: tuple[str, type[Endless]],
    head: dict[str, str],
    piece: bytes,
) -> None:
    url, handler = server
    handler.head, handler.piece = head, piece
    keys = consortium.site("alder")
    files = tls.KeyFiles(keys / "site.key", keys / "site.pem", keys / "ca.pem")
    way = outbound.client(url, tls.client_context(files))
    client = Calls(url, way, certificates.load_tls_key(keys / "site.key"))

    with pytest.raises(httpx.RemoteProtocolError, match=r"^GLD-N128 "):
        client.ActivateNode(fleet_pb2.ActivateNodeRequest())

    assert handler.sent < 50 * MIB  # buffers of the system, and no more
