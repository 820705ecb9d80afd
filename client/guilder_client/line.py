"""HTTP/1.1 over one kind of connection: mutual TLS to our server, made and kept here.

The same requests and answers as any client's, in a fraction of the time: an answer is
read into memory that the caller has, a body goes out from where it lies. It follows no
redirect, unpacks nothing, and knows no request.
"""

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from guilder_shared.tunnel import TunnelRefusedError

MOST_HEAD: Final = 32 << 10
READ_BYTES: Final = 16 << 10  # what TLS gives at most in one piece
# Firewalls forget a line that was silent for 30 s, and tell nobody.
FRESH_S: Final = 25.0
ALPN: Final = ["http/1.1"]
Connect = Callable[[float | None], socket.socket]


class Line(httpx.BaseTransport):
    """Connections to one server, each used by one request at a time.

    Args:
        tls: From `tls.client_context`.
        host: Whose certificate is expected.
        connect: Makes a plain connection, within some seconds.
    """

    def __init__(self, tls: ssl.SSLContext, host: str, connect: Connect) -> None:
        tls.set_alpn_protocols(ALPN)
        self._tls, self._host, self._connect = tls, host, connect
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and read the head of its answer.

        The answer's extension `read_into` fills a buffer with what comes next of it.

        Raises:
            httpx.TransportError: The connection failed, or what came is no answer.
        """
        timeout = request.extensions.get("timeout", {})
        connection = self._take() or self._open(timeout.get("connect"))
        try:
            with _as_httpx(httpx.WriteError, httpx.WriteTimeout):
                connection.send(request, timeout.get("write"))
            with _as_httpx(httpx.ReadError, httpx.ReadTimeout):
                status, headers = connection.read_head(timeout.get("read"))
            length = _length(headers)
        except BaseException:
            connection.close()
            raise
        stays = ("connection", "close") not in [(k, v.lower()) for k, v in headers]
        body = _Body(connection, length, self._give_back if stays else None)
        return httpx.Response(
            status, headers=headers, stream=body, extensions={"read_into": body.fill}
        )

    def close(self) -> None:
        """Close what is open and not in use."""
        while connection := self._take():
            connection.close()

    def _take(self) -> "_Connection | None":
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.is_fresh() and connection.is_quiet():
                return connection
            connection.close()  # the server ended it meanwhile, or somebody in between

    def _give_back(self, connection: "_Connection") -> None:
        connection.rests_since_s = time.monotonic()
        with self._lock:
            self._idle.append(connection)

    def _open(self, timeout_s: float | None) -> "_Connection":
        with _as_httpx(httpx.ConnectError, httpx.ConnectTimeout):
            plain = self._connect(timeout_s)
            try:
                plain.settimeout(timeout_s)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                secure = self._tls.wrap_socket(plain, server_hostname=self._host)
            except BaseException:
                plain.close()
                raise
            return _Connection(secure)


class _Connection:
    def __init__(self, secure: ssl.SSLSocket) -> None:
        self._secure = secure
        self.rests_since_s = time.monotonic()
        self._ahead = memoryview(b"")  # read with a head, and not of it

    def is_fresh(self) -> bool:
        """Whether it rests for so short a time that nobody has forgotten it."""
        return time.monotonic() - self.rests_since_s < FRESH_S

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last answer, not even an end."""
        readable, _, _ = select.select([self._secure], [], [], 0)
        return not (readable or self._ahead or self._secure.pending())

    def close(self) -> None:
        self._secure.close()

    def send(self, request: httpx.Request, timeout_s: float | None) -> None:
        self._secure.settimeout(timeout_s)
        target = request.url.raw_path
        lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), target)]
        lines += [b"%s: %s" % (name, value) for name, value in request.headers.raw]
        waiting = b"\r\n".join([*lines, b"", b""])
        assert isinstance(request.stream, httpx.SyncByteStream)
        for part in request.stream:
            if len(waiting) + len(part) <= READ_BYTES:  # what is short goes together
                waiting += part
                continue
            for each in filter(None, (waiting, part)):
                self._secure.sendall(each)
            waiting = b""
        if waiting:
            self._secure.sendall(waiting)

    def read_head(self, timeout_s: float | None) -> tuple[int, list[tuple[str, str]]]:
        self._secure.settimeout(timeout_s)
        found = bytearray()
        while (end := found.find(b"\r\n\r\n")) < 0:
            piece = self._secure.recv(READ_BYTES)
            if not piece or len(found) > MOST_HEAD:
                raise httpx.RemoteProtocolError("an answer without an end of its head")
            found += piece
        self._ahead = memoryview(bytes(found[end + 4 :]))
        first, *lines = found[:end].decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        status = rest[:3]
        if version != "HTTP/1.1" or not (status.isascii() and status.isdigit()):
            raise httpx.RemoteProtocolError("an answer that is none")
        pairs = [line.partition(":") for line in lines]
        return int(status), [(k.lower(), v.strip()) for k, _, v in pairs]

    def read(self, buffer: memoryview) -> int:
        if self._ahead:
            size = min(len(self._ahead), len(buffer))
            buffer[:size] = self._ahead[:size]
            self._ahead = self._ahead[size:]
            return size
        return self._secure.recv_into(buffer)


class _Body(httpx.SyncByteStream):
    """The rest of an answer."""

    def __init__(
        self,
        connection: _Connection,
        num_bytes: int,
        give_back: Callable[[_Connection], None] | None,
    ) -> None:
        self._connection, self._left = connection, num_bytes
        self._give_back, self._is_open = give_back, True

    def fill(self, buffer: memoryview) -> None:
        """Read exactly so much.

        Raises:
            httpx.TransportError: The answer ends before, or the connection does.
        """
        if len(buffer) > self._left:
            raise httpx.RemoteProtocolError("an answer shorter than what is in it")
        place = 0
        with _as_httpx(httpx.ReadError, httpx.ReadTimeout):
            while place < len(buffer):
                size = self._connection.read(buffer[place:])
                if not size:
                    raise httpx.RemoteProtocolError("an answer that broke off")
                place += size
                self._left -= size

    def __iter__(self) -> Iterator[bytes]:
        while self._left:
            buffer = bytearray(min(self._left, READ_BYTES))
            self.fill(memoryview(buffer))
            yield bytes(buffer)

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if self._left or self._give_back is None:
            self._connection.close()
        else:
            self._give_back(self._connection)


def _length(headers: list[tuple[str, str]]) -> int:
    """How long an answer says it is; without a word of it none is read."""
    found = [value for name, value in headers if name == "content-length"]
    if len(found) != 1 or any(name == "transfer-encoding" for name, _ in headers):
        raise httpx.RemoteProtocolError("GLD-N128 an answer of no size")
    if not (found[0].isascii() and found[0].isdigit()):
        raise httpx.RemoteProtocolError("GLD-N128 an answer of no size")
    return int(found[0])


@contextmanager
def _as_httpx(
    failed: type[httpx.TransportError], late: type[httpx.TransportError]
) -> Iterator[None]:
    """Errors of sockets and TLS as httpx names them, with their causes."""
    try:
        yield
    except TunnelRefusedError as error:
        said = (error.strerror or "").removeprefix("HTTP/1.1 ")
        raise httpx.ProxyError(said) from error
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise failed(str(error)) from error
