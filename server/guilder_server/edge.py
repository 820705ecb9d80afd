"""The server's outer wall: who calls, which path, how large, before a byte is parsed.

A caller is known by the key of its TLS certificate and by nothing it says. This
module knows HTTP and TLS; it knows no Flower and no study.
"""

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography import x509
from starlette.types import Receive, Scope, Send
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from guilder_server.front import Front
from guilder_server.refusal import NOT_A_SITE, RefusedError, told
from guilder_server.relays import Address, Relays
from guilder_server.uploads import UploadSizeError
from guilder_shared.certificates import public_pem
from guilder_shared.errors import NetworkError

logging.getLogger("uvicorn.error").setLevel(logging.ERROR)

log = logging.getLogger("guilder.edge")

PIECE_BYTES = 128 * 1024  # of a large answer, between two looks at its caller
WAITING_BYTES = 64 * 1024  # of an answer that its caller has not fetched; 512 KiB else
MAX_HEAD_BYTES = 32 * 1024  # request line and headers
MOST_CONNECTIONS = 32  # of one key; a node needs three, the oldest goes for a new one
HEAD_S = 20.0  # for a request's head, from the first byte that may come
PIECE_S = 30.0  # between two pieces of a body
HANDSHAKE_S = 10.0  # for the whole of it, from the first message on
CLOSE = (b"connection", b"close")


@dataclass(frozen=True)
class Request:
    """One request that passed the wall.

    Attributes:
        site: Whose certificate the caller showed.
        node_key: That certificate's public key, PEM.
        path: One of the allowed paths.
        headers: Names in lower case.
        pieces: The body as it came; never longer than the path's limit.
    """

    site: str
    node_key: bytes
    path: str
    headers: Mapping[str, str]
    pieces: Sequence[bytes]

    @property
    def body(self) -> bytes:
        """The body, whole."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)


@dataclass(frozen=True)
class Response:
    """What the caller gets: `body`, and behind it `shared`, which is never copied."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    shared: memoryview = memoryview(b"")  # noqa: RUF009 - of nothing, read-only


class Inside(Protocol):
    """What lies behind the wall."""

    limits: Mapping[str, int]  # allowed path -> largest body, bytes

    def site_of(self, node_key: bytes) -> str | None:
        """Name the site with this key; None if there is none."""

    def receiving(self, site: str, path: str, num_bytes: int) -> None:
        """Hear that a piece of a body came in; may raise UploadSizeError."""

    async def answer(self, request: Request) -> Response:
        """Answer a request that passed the wall."""


class Edge:
    """Listens on one socket, with TLS, in a thread of its own.

    Args:
        address: Host and port; port 0 takes a free one.
        tls: Asks every caller for a certificate of our authority.
        inside: What lies behind the wall.
        each_second: Called in the listening thread about once a second.
    """

    def __init__(
        self,
        address: tuple[str, int],
        tls: ssl.SSLContext,
        inside: Inside,
        each_second: Callable[[], None],
    ) -> None:
        self._inside = inside
        self._callers: _Callers = {}
        self._socket = _bind(address)
        self.port: int = self._socket.getsockname()[1]

        async def tick() -> None:
            try:
                each_second()
            except Exception:  # it must not end the listener
                log.exception("the hub's housekeeping failed")

        config = Config(
            self._serve,
            interface="asgi3",
            http=functools.partial(_PeerProtocol, callers=self._callers),  # type: ignore[arg-type]
            ssl_context_factory=lambda _config, _default: tls,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            callback_notify=tick,
            timeout_notify=0,
        )
        self._server = _Listener(config, self._socket)
        self._thread = threading.Thread(
            target=self._server.run, name="guilder-edge", daemon=True
        )

    def start(self, elsewhere: Mapping[bytes, Address], relays: Relays) -> None:
        """Begin to listen; returns when callers can connect.

        Args:
            elsewhere: Other listeners that share the port; see `Front`.
            relays: Counts what is relayed to them.

        Raises:
            NetworkError: The listener did not come up (GLD-N003).
        """
        self._server.elsewhere, self._server.relays = elsewhere, relays
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise NetworkError("GLD-N003", f"port {self.port}: the listener died")
            time.sleep(0.002)

    def stop(self) -> None:
        """Close every connection and the socket; returns when it is done."""
        self._server.should_exit = True  # seen within 0.1 s; open answers go out
        time.sleep(0.05)
        for node_key in list(self._callers):
            self.shut_out(node_key)
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._socket.close()

    def shut_out(self, node_key: bytes) -> None:
        """Cut the open connections of one key."""
        for caller in list(self._callers.get(node_key, ())):
            with contextlib.suppress(RuntimeError):  # the loop has ended
                caller.loop.call_soon_threadsafe(caller.transport.abort)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        response = await self._judge(scope, receive)
        headers = [(k.encode(), v.encode()) for k, v in response.headers.items()]
        num_bytes = len(response.body) + len(response.shared)
        headers.append((b"content-length", str(num_bytes).encode()))
        if response.status in {403, 404, 408, 413}:
            headers.append(CLOSE)  # the body may not have been read
        await send(_start(response.status, headers))
        # In pieces, each when the one before is gone: many callers may be slow, and
        # what is shared, such as a model, then lies here once.
        for start in range(0, len(response.shared), PIECE_BYTES):
            piece = response.shared[start : start + PIECE_BYTES]
            body = b"".join((response.body, piece)) if start == 0 else piece
            more = start + PIECE_BYTES < len(response.shared)
            await send({"type": "http.response.body", "body": body, "more_body": more})
        if not response.shared:
            await send({"type": "http.response.body", "body": response.body})

    async def _judge(self, scope: Scope, receive: Receive) -> Response:
        node_key: bytes = scope["guilder.node_key"]
        site = self._inside.site_of(node_key)
        if site is None:
            return Response(403, told(403, "not-a-site", NOT_A_SITE))
        try:
            path, headers, limit = self._head_of(scope)
            pieces = await self._read(receive, site, path, limit)
        except RefusedError as refused:
            return Response(refused.status, told(refused.status, refused.word))
        return await self._inside.answer(Request(site, node_key, path, headers, pieces))

    def _head_of(self, scope: Scope) -> tuple[str, dict[str, str], int]:
        """A request's path, headers and largest body, if they may be."""
        path: str = scope["path"]
        limit = self._inside.limits.get(path)
        if limit is None or scope["method"] != "POST" or scope["query_string"]:
            raise RefusedError(404, "no-such-path")
        headers = {
            k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]
        }
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > limit:
            raise RefusedError(413, "too-large")
        return path, headers, limit

    async def _read(
        self, receive: Receive, site: str, path: str, limit: int
    ) -> list[bytes]:
        pieces: list[bytes] = []
        num_bytes = 0
        while True:
            try:
                async with asyncio.timeout(PIECE_S):
                    event = await receive()
            except TimeoutError:
                raise RefusedError(408, "body") from None
            if event["type"] != "http.request":
                raise RefusedError(400, "gone")  # nobody reads this
            piece = event.get("body", b"")
            num_bytes += len(piece)
            if num_bytes > limit:
                raise RefusedError(413, "too-large")
            if piece:
                try:
                    self._inside.receiving(site, path, len(piece))
                except UploadSizeError:
                    raise RefusedError(413, "more-than-announced") from None
                pieces.append(piece)
            if not event.get("more_body", False):
                return pieces


class _Listener(Server):
    """uvicorn behind a Front: it gets the connections that are meant for it."""

    def __init__(self, config: Config, listening: socket.socket) -> None:
        super().__init__(config)
        self.elsewhere: Mapping[bytes, Address] = {}
        self.relays = Relays()
        self._listening = listening
        self._accepting: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets or [])
        front = Front(self._listening, self._take_in, self.elsewhere, self.relays)
        self._accepting = asyncio.create_task(front.run())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
        await super().shutdown(sockets)

    async def _take_in(self, caller: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(
            lambda: self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                _loop=loop,
            ),
            caller,
            ssl=self.config.ssl,
            ssl_handshake_timeout=HANDSHAKE_S,
        )


class _PeerProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, telling the app which key the caller's certificate holds."""

    def __init__(self, *args: Any, callers: "_Callers", **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._callers = callers
        self._node_key = b""
        self._head_bytes: int | None = 0  # None while a body is read
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WAITING_BYTES)
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        node_key = public_pem(x509.load_der_x509_certificate(shown))
        self._node_key = node_key
        same_key = self._callers.setdefault(node_key, {})
        if len(same_key) >= MOST_CONNECTIONS:  # it may be half open: the newest counts
            oldest = next(iter(same_key))
            del same_key[oldest]
            oldest.transport.abort()
        same_key[self] = None
        self._await_head()
        inner: Callable[..., Awaitable[None]] = self.app

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["guilder.node_key"] = node_key
            await inner(scope, receive, send)

        self.app = app

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()
        same_key = self._callers.get(self._node_key, {})
        same_key.pop(self, None)
        if not same_key:
            self._callers.pop(self._node_key, None)

    def data_received(self, data: bytes) -> None:
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES + len(data):  # earlier pieces alone
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        self._stop_waiting()
        super().on_headers_complete()

    def _await_head(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(HEAD_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        """Tell a caller whose head did not come to its end, and hang up."""
        body = told(408, "head")
        self.transport.write(
            b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.transport.close()


_Callers = dict[bytes, dict[_PeerProtocol, None]]  # by key, the oldest first


def _start(status: int, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _bind(address: tuple[str, int]) -> socket.socket:
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=256)
    except OSError as error:
        in_use = error.errno in {48, 98}  # EADDRINUSE, BSD and Linux
        raise NetworkError(
            "GLD-N001" if in_use else "GLD-N002",
            f"{host} port {port} cannot be listened on: {error.strerror}",
            fix="Stop the process that has it (`ss -ltnp`), or take another port."
            if in_use
            else "Take an address of this machine, and a port above 1023.",
        ) from None
