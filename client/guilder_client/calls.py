"""The Fleet requests of a site: Flower's own, and objects without their copies.

An object is read into the memory where it stays and goes out from where it lies. What
protobuf writes around it is written and read here.
"""

import hashlib
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Final

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from google.protobuf.message import DecodeError, Message

from guilder_shared import varints
from guilder_shared.pieces import LONGEST_HEAD, Content, Landing, Piece, piece_head

HEARTBEAT_S: Final = 15.0  # the server waits two of them before a site counts as away
PIECE_BYTES: Final = 64 << 10  # of an upload, between two looks whether it may go on
SMALL_BYTES: Final = 64 << 10  # of an answer: copies cost nothing
BEFORE_CONTENT: Final = 64  # bytes of an answer before its object; they take about 10
PULLED: Final = message_pb2.PullObjectResponse.OBJECT_CONTENT_FIELD_NUMBER
PUSHED: Final = message_pb2.PushObjectRequest.OBJECT_CONTENT_FIELD_NUMBER


class Held(Exception):
    """A reply must not leave; whatever of it has left is less than a whole."""


class Calls(FleetHttpClient):
    """Flower's Fleet client, on an HTTPS client of ours.

    Attributes:
        node_key: The public key, as Flower writes it.
        pull_s: How long a pull may stay open.
        upload_bytes: How large the objects of the next reply are.
        message_bytes: How large those of the last message are, as the server says.
        held: Whether a reply must stay here; asked for every 64 KiB of it.
    """

    def __init__(
        self, url: str, way: httpx.Client, key: EllipticCurvePrivateKey
    ) -> None:
        super().__init__(
            url,
            interceptors=[NodeAuthHttpInterceptor(key, key.public_key()), self],
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # believes nobody
        )
        self._client.close()  # Flower's own
        self._client = way
        self.node_key = public_key_to_bytes(key.public_key())
        self.pull_s = 0.0
        self.upload_bytes = self.message_bytes = 0
        self.held: Callable[[], bool] | None = None

    def intercept(
        self, context: ProtobufRequestContext, call_next: ProtobufCall
    ) -> httpx.Response:
        """Say how long a pull may stay open, and how large an upload will be."""
        message, request = context.message, context.request
        if isinstance(message, fleet_pb2.PullMessagesRequest):
            request.headers["guilder-wait-s"] = str(self.pull_s)
            answer = call_next(context)
            said = answer.headers.get("guilder-message-bytes", "")
            self.message_bytes = int(said) if said.isdecimal() and len(said) < 16 else 0
            return answer
        if isinstance(message, fleet_pb2.PushMessagesRequest):
            request.headers["guilder-upload-bytes"] = str(self.upload_bytes)
            if self.held is not None and self.held():
                raise Held
        return call_next(context)

    def pull(self, request: message_pb2.PullObjectRequest, landing: Landing) -> Content:
        """Fetch one object, which has the name that it was asked by.

        Raises:
            ValueError: What came has another name, or is no answer.
            httpx.HTTPError: The server refused, or the connection failed.
        """
        body = request.SerializeToString(deterministic=True)
        with closing(self._ask("pull-object", request, [memoryview(body)])) as answer:
            content = _object(answer, landing)
        name = request.object_id
        if isinstance(content, Piece):
            found = content.object_id()
        else:
            found = hashlib.sha256(content).hexdigest()
        if found != name:
            raise ValueError("an object of another name")
        return content

    def push(self, request: message_pb2.PushObjectRequest, content: Content) -> None:
        """Send one object; `request` says all but its content.

        Raises:
            Held: It must stay here.
            ValueError: The server did not store it.
            httpx.HTTPError: It refused, or the connection failed.
        """
        before = message_pb2.PushObjectRequest(
            node=request.node, run_id=request.run_id, object_id=request.object_id
        ).SerializeToString()
        after = message_pb2.PushObjectRequest(session_id=request.session_id)
        head = before + varints.head_of(PUSHED, len(content))
        if isinstance(content, Piece):
            head, body = head + content.head, content.body
        else:
            body = memoryview(content)
        whole = [memoryview(head), body, memoryview(after.SerializeToString())]
        with closing(self._ask("push-object", request, whole)) as answer:
            told = answer.read()
        try:
            stored = message_pb2.PushObjectResponse.FromString(told).stored
        except DecodeError:
            raise ValueError("an answer that is none") from None
        if not stored:
            raise ValueError("an object that was not stored")

    def _ask(
        self, call: str, message: Message, parts: Sequence[memoryview]
    ) -> httpx.Response:
        """The answer to a request, of which only the head was read."""
        request = self._client.build_request(
            "POST",
            f"{self._base_url}/v1/fleet/{call}",
            headers={
                "content-type": PROTOBUF_MEDIA_TYPE,
                "accept": PROTOBUF_MEDIA_TYPE,
                "content-length": str(sum(map(len, parts))),
            },
        )
        held = self.held if isinstance(message, message_pb2.PushObjectRequest) else None
        request.stream = _Released(parts, held)
        context = ProtobufRequestContext(f"/{call}", message, request)
        answer = self._send(context, stream=True)
        try:
            if answer.is_error:
                answer.read()  # a word, for who judges it
            answer.raise_for_status()
        except BaseException:
            answer.close()
            raise
        return answer


def heartbeat(node_id: int) -> heartbeat_pb2.SendNodeHeartbeatRequest:
    """What a node says every 10 to 13 s, whatever it does."""
    return heartbeat_pb2.SendNodeHeartbeatRequest(
        node=FlowerNode(node_id=node_id), heartbeat_interval=HEARTBEAT_S
    )


def _object(answer: httpx.Response, landing: Landing) -> Content:
    """The object in an answer; a long piece is read into its place."""
    read_into = answer.extensions.get("read_into")
    num_bytes = int(answer.headers["content-length"])
    if read_into is None or num_bytes <= SMALL_BYTES:
        try:
            whole = message_pb2.PullObjectResponse.FromString(answer.read())
        except DecodeError:
            raise ValueError("an answer that is none") from None
        return landing.put([memoryview(whole.object_content)])
    start = bytearray(BEFORE_CONTENT + LONGEST_HEAD)
    read_into(memoryview(start))
    found = varints.find(bytes(start[:BEFORE_CONTENT]), PULLED)
    if found is None or found[1] + found[2] != num_bytes:
        raise ValueError("an answer that is none")
    ahead = memoryview(start)[found[1] :]  # of the object
    head = piece_head(bytes(ahead[:LONGEST_HEAD]))
    if not head:
        content = bytearray(found[2])
        content[: len(ahead)] = ahead
        read_into(memoryview(content)[len(ahead) :])
        return bytes(content)
    memory, begin = landing.place(found[2] - len(head))
    piece = Piece(head, memory, begin, begin + found[2] - len(head))
    ahead = ahead[len(head) :]
    piece.body[: len(ahead)] = ahead
    try:
        read_into(piece.body[len(ahead) :])
    except BaseException:
        landing.give_back(piece)
        raise
    return piece


class _Released(httpx.SyncByteStream):
    """A body that goes out piece by piece, as long as it may."""

    def __init__(
        self, parts: Sequence[memoryview], held: Callable[[], bool] | None
    ) -> None:
        self._parts, self._held = parts, held

    def __iter__(self) -> Iterator[memoryview]:  # type: ignore[override]
        for part in self._parts:
            for start in range(0, len(part), PIECE_BYTES):
                if self._held is not None and self._held():
                    raise Held
                yield part[start : start + PIECE_BYTES]
