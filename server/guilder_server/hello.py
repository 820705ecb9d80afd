"""What a TLS client asks for in its first message, read without answering it.

Only the two things by which one port is shared are read: the protocols it offers
(ALPN) and the name it calls. Nothing here is trusted: whoever gets the connection
does the whole handshake itself.
"""

from dataclasses import dataclass

LARGEST_BYTES = 1 << 14  # one TLS record; a hello of today has 0.3 to 2 KiB
HANDSHAKE, CLIENT_HELLO = 22, 1  # record and message types, RFC 8446
SERVER_NAME, ALPN = 0, 16  # extensions, RFC 6066 and RFC 7301
HEAD_BYTES, RANDOM_BYTES = 5, 2 + 32  # of a record; version and random


class NoHelloError(ValueError):
    """What was sent does not begin a TLS connection."""


@dataclass(frozen=True)
class Hello:
    """What the caller offers and whom it calls.

    Attributes:
        protocols: As offered, best first; empty if it offers none.
        server_name: As it was sent; empty if it calls an address.
    """

    protocols: tuple[bytes, ...] = ()
    server_name: bytes = b""


class _Reader:
    """Reads numbers and fields from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, num_bytes: int) -> bytes:
        end = self._at + num_bytes
        if end > len(self._data):
            raise NoHelloError("a field is longer than what holds it")
        piece, self._at = self._data[self._at : end], end
        return piece

    def number(self, num_bytes: int) -> int:
        return int.from_bytes(self.take(num_bytes), "big")

    def field(self, length_bytes: int) -> bytes:
        return self.take(self.number(length_bytes))

    def __bool__(self) -> bool:
        return self._at < len(self._data)


def read_hello(data: bytes) -> Hello | None:
    """Read the first message of a TLS client from the first bytes it sent.

    Args:
        data: All that has come so far; may hold more than the first message.

    Returns:
        None while the message is not whole.

    Raises:
        NoHelloError: It can become no ClientHello of at most 16 KiB.

    Source: RFC 8446, sections 4.1.2 and 5.1.
    """
    message = b""
    while True:
        if data[:1] and data[0] != HANDSHAKE:
            raise NoHelloError("not a TLS handshake")
        if len(data) < HEAD_BYTES:
            return None
        length = int.from_bytes(data[3:HEAD_BYTES], "big")
        if length == 0 or len(message) + length > LARGEST_BYTES:
            raise NoHelloError("a record of no possible length")
        message += data[HEAD_BYTES : HEAD_BYTES + length]
        if message[:1] and message[0] != CLIENT_HELLO:
            raise NoHelloError("another message than ClientHello")
        needed = 4 + int.from_bytes(message[1:4], "big")
        if len(message) >= 4 and needed > LARGEST_BYTES:
            raise NoHelloError("a longer ClientHello than any")
        if len(message) >= max(4, needed):
            return _parse(message[4:needed])
        if len(data) < HEAD_BYTES + length:
            return None
        data = data[HEAD_BYTES + length :]


def _parse(body: bytes) -> Hello:
    reader = _Reader(body)
    reader.take(RANDOM_BYTES)
    reader.field(1)  # session
    reader.field(2)  # cipher suites
    reader.field(1)  # compressions
    if not reader:
        return Hello()
    protocols: tuple[bytes, ...] = ()
    server_name = b""
    extensions = _Reader(reader.field(2))
    while extensions:
        kind, value = extensions.number(2), _Reader(extensions.field(2))
        if kind == ALPN:
            protocols = _protocols(_Reader(value.field(2)))
        elif kind == SERVER_NAME:
            server_name = _host_name(_Reader(value.field(2)))
    return Hello(protocols, server_name)


def _protocols(offered: _Reader) -> tuple[bytes, ...]:
    found = []
    while offered:
        found.append(offered.field(1))
    return tuple(found)


def _host_name(names: _Reader) -> bytes:
    while names:
        kind, name = names.number(1), names.field(2)
        if kind == 0:
            return name
    return b""
