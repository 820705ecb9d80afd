"""Flower's Fleet requests, answered for sites that are who they say they are.

Only what a resident node needs is here; there is no Control, no Runtime, no
self-registration, no bundle. A caller is its TLS key: certificate = node key =
node id = sender. This module knows no study and decodes no update.
"""

import asyncio
import binascii
import contextlib
import datetime
import logging
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Metadata
from flwr.common.constant import (
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_HEADER,
    TIMESTAMP_TOLERANCE,
)
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    NodeStatus,
)
from flwr.supercore.date import now
from flwr.supercore.error import FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.supercore.inflatable.inflatable_object import is_valid_sha256_hash
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from flwr.superlink.servicer.fleet import fleet_handlers

from guilder_server import objects
from guilder_server.edge import Request, Response
from guilder_server.links import Links, Rest, object_ids
from guilder_server.refusal import RefusedError, told
from guilder_server.uploads import UploadGate, UploadSizeError
from guilder_shared import witnessing
from guilder_shared.errors import EnrolmentError
from guilder_shared.pieces import Landing

log = logging.getLogger("guilder.fleet")

FLEET = "/v1/fleet/"
MIB = 1024 * 1024
SMALL, OBJECT = 1 * MIB, 8 * MIB  # Flower sends arrays in pieces of 5 MiB
REQUESTS: dict[str, tuple[Any, int]] = {  # path -> request type, largest body
    "activate-node": (fleet_pb2.ActivateNodeRequest, SMALL),
    "deactivate-node": (fleet_pb2.DeactivateNodeRequest, SMALL),
    "send-node-heartbeat": (heartbeat_pb2.SendNodeHeartbeatRequest, SMALL),
    "pull-messages": (fleet_pb2.PullMessagesRequest, SMALL),
    "push-messages": (fleet_pb2.PushMessagesRequest, SMALL),
    "push-object": (message_pb2.PushObjectRequest, OBJECT),
    "pull-object": (message_pb2.PullObjectRequest, SMALL),
    "confirm-message-received": (message_pb2.ConfirmMessageReceivedRequest, SMALL),
}
WAIT_HEADER = "guilder-wait-s"  # how long an empty pull may stay open
UPLOAD_HEADER = "guilder-upload-bytes"  # how much a reply's objects are
SIZE_HEADER = "guilder-message-bytes"  # and how much those of a message are
MAX_WAIT_S = 20.0
MOST_OBJECTS = 4096  # in one reply: 4096 x 5 MiB is more than any upload may be


@dataclass
class Member:
    """One site as the hub sees it."""

    name: str
    node_key: bytes
    node_id: int
    open_message: str = ""  # the message it is reading now
    readable: frozenset[str] = frozenset()  # and the objects of it
    uploading: str = ""  # the reply it is sending now
    pull_no: int = 0  # a newer pull or activation ends an older pull
    parked: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def wake(self) -> None:
        """End this site's open pull, from any thread."""
        if self.parked:
            loop, event = self.parked
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(event.set)


class Fleet:
    """The sites of a roster and what they may ask.

    Args:
        links: Flower's state.
        gate: Who may upload now.
        remembered: What the server says of a site's ledger, to that site alone.
        heard: Is told each time a site is heard of.
    """

    def __init__(
        self,
        links: Links,
        gate: UploadGate,
        remembered: Callable[[str], bytes],
        heard: Callable[[str], None] = lambda _site: None,
    ) -> None:
        self.limits: Mapping[str, int] = {
            FLEET + path: limit for path, (_, limit) in REQUESTS.items()
        } | {witnessing.PATH: 0}
        self._remembered, self._heard = remembered, heard
        self._links = links
        self._gate = gate
        self._members: dict[str, Member] = {}
        self._by_key: dict[bytes, str] = {}
        self._rings: dict[str, list[Callable[[], None]]] = {}  # by site
        self._closing = False

    def admit(self, name: str, node_key: bytes) -> None:
        """Let a site in, from now on.

        Raises:
            EnrolmentError: The name or the key is there already (GLD-E010).
        """
        if name in self._members or node_key in self._by_key:
            raise EnrolmentError("GLD-E010", f"site {name!r} or its key is there twice")
        node_id = self._links.create_node(
            NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, node_key, 0, name=name
        )
        self._members[name] = Member(name, node_key, node_id)
        self._by_key[node_key] = name

    def expel(self, name: str) -> bytes:
        """Let a site in no more; returns its key."""
        member = self._members.pop(name)
        del self._by_key[member.node_key]
        self._links.end_node(member.node_id)
        member.wake()
        return member.node_key

    def names(self) -> dict[int, str]:
        """Name every site, online or not, by Flower's node id."""
        members = list(self._members.values())  # a site may be let in meanwhile
        return {member.node_id: member.name for member in members}

    def wake(self, node_ids: Iterable[int]) -> None:
        """Tell waiting sites that there is something for them."""
        wanted = set(node_ids)
        for member in list(self._members.values()):
            if member.node_id in wanted:
                member.wake()
                for ring in list(self._rings.get(member.name, ())):
                    ring()

    @contextlib.contextmanager
    def attended(self, name: str, ring: Callable[[], None]) -> Iterator[None]:
        """Keep a site online that listens for `ring`, and ring when it is wanted."""
        self._rings.setdefault(name, []).append(ring)
        try:
            yield
        finally:
            self._rings[name].remove(ring)

    def renew_leases(self) -> None:
        """Count the sites that listen as heard of just now."""
        for name in [name for name, rings in self._rings.items() if rings]:
            member = self._members.get(name)
            node = self._links.nodes.get(member.node_id) if member else None
            if node is not None and node.status == NodeStatus.ONLINE:
                interval = node.heartbeat_interval
                self._links.acknowledge_node_heartbeat(node.node_id, interval)
                self._heard(name)

    def close(self) -> None:
        """End all open pulls, and let none stay open."""
        self._closing = True
        self.wake(self.names())

    def site_of(self, node_key: bytes) -> str | None:
        """Name the site with this key; None if there is none."""
        return self._by_key.get(node_key)

    def receiving(self, site: str, path: str, num_bytes: int) -> None:
        """Count an upload's bytes as they come in; see `UploadGate.received`."""
        if path == FLEET + "push-object":
            self._gate.received(site, num_bytes)

    async def answer(self, request: Request) -> Response:
        """Answer one of Flower's Fleet requests, or what is remembered of a ledger."""
        if request.path == witnessing.PATH:  # the certificate alone says whose
            return Response(200, self._remembered(request.site))
        try:
            kind, _ = REQUESTS[request.path.removeprefix(FLEET)]
            message = (
                objects.pushed(request.pieces)
                if kind is message_pb2.PushObjectRequest
                else kind.FromString(request.body)
            )
            member = self._members[request.site]
            self._authenticate(member, request, message)
            self._heard(member.name)
            return _response(await self._dispatch(member, request, message))
        except RefusedError as refused:
            return Response(refused.status, told(refused.status, refused.word))
        except UploadSizeError:
            return Response(413, told(413, "more-than-announced"))
        except FlowerError as error:
            spec = API_ERROR_MAP.get(error.code)
            status = spec.http_status_code if spec else 500
            # 403 is our word for "no site of ours"; Flower says it of an ended run
            status = 409 if status == 403 else status
            return Response(status, told(status))
        except Exception as error:  # a caller may send anything; it must not matter
            log.warning(
                "site %s: %s: %s", request.site, request.path, type(error).__name__
            )
            return Response(400, told(400, "unreadable"))

    def _authenticate(self, member: Member, request: Request, message: Any) -> None:
        """Require certificate key = header key = node id, signed a moment ago."""
        try:
            shown = b64decode(request.headers[FLEET_HTTP_PUBLIC_KEY_HEADER])
            signature = b64decode(request.headers[FLEET_HTTP_SIGNATURE_HEADER])
            stamp = request.headers[TIMESTAMP_HEADER]
            age_s = (now() - datetime.datetime.fromisoformat(stamp)).total_seconds()
        except (KeyError, ValueError, TypeError, binascii.Error):
            raise RefusedError(401, "no-node-header") from None
        if shown != request.node_key or shown != member.node_key:
            raise RefusedError(403, "another-node's-header")
        oldest_s = TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
        if not -SYSTEM_TIME_TOLERANCE < age_s < oldest_s:
            raise RefusedError(401, "clock")
        key = bytes_to_public_key(shown)
        if not verify_signature(key, stamp.encode("ascii"), signature):
            raise RefusedError(401, "signature")
        if isinstance(message, fleet_pb2.ActivateNodeRequest):
            if message.public_key != member.node_key:
                raise RefusedError(403, "another-node's-key")
            return
        node_id = getattr(message, "node", message).node_id
        if node_id != member.node_id:
            raise RefusedError(
                401, "node-id"
            )  # as after a restart of ours: activate anew
        node = self._links.nodes[node_id]
        if node.status in {NodeStatus.ONLINE, NodeStatus.OFFLINE}:
            self._links.acknowledge_node_heartbeat(node_id, node.heartbeat_interval)

    async def _dispatch(self, member: Member, request: Request, message: Any) -> Any:
        if isinstance(message, fleet_pb2.PullMessagesRequest):
            return await self._pull(member, request, message)
        if isinstance(message, objects.Pushed):
            return await self._store(member, message)
        if isinstance(message, message_pb2.PullObjectRequest):
            return self._give(member, message)
        if isinstance(message, fleet_pb2.PushMessagesRequest):
            return self._announce(member, request, message)
        return self._call(member, message)

    def _call(self, member: Member, message: Any) -> Any:
        handlers: Any = fleet_handlers
        match message:
            case fleet_pb2.ActivateNodeRequest():
                member.pull_no += 1
                member.wake()
                handler = handlers.activate_node
            case fleet_pb2.DeactivateNodeRequest():
                handler = handlers.deactivate_node
            case heartbeat_pb2.SendNodeHeartbeatRequest():
                handler = handlers.send_node_heartbeat
            case _:  # ConfirmMessageReceivedRequest
                if message.message_object_id != member.open_message:
                    raise RefusedError(404, "not-your-message")
                store = self._links.object_store
                return handlers.confirm_message_received(message, self._links, store)
        return handler(message, self._links)

    async def _pull(self, member: Member, request: Request, message: Any) -> Any:
        """Hand out the next message, waiting for one if the caller likes to."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        deadline = loop.time() + _seconds(request.headers.get(WAIT_HEADER, "0"))
        member.pull_no += 1
        pull_no = member.pull_no
        member.wake()
        member.parked = (loop, event)
        self._links.show_empty_hands(member.node_id)
        while True:
            event.clear()
            if member.pull_no != pull_no:
                return fleet_pb2.PullMessagesResponse()
            found = fleet_handlers.pull_messages(
                message, self._links, self._links.object_store
            )
            if found.messages_list:
                member.open_message = found.messages_list[0].metadata.message_id
                ids = object_ids(found.message_object_trees[0])
                member.readable = frozenset(ids)
                size = sum(self._links.size_of(object_id) for object_id in ids)
                told = {SIZE_HEADER: str(size)}
                return Response(200, found.SerializeToString(), told)
            left_s = deadline - loop.time()
            if left_s <= 0 or self._closing:
                return found
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), left_s)

    def _announce(self, member: Member, request: Request, message: Any) -> Any:
        """Take note of a reply and say which of its objects are wanted."""
        if len(message.messages_list) != 1 or len(message.message_object_trees) != 1:
            raise RefusedError(400, "one-reply-at-a-time")
        reply = metadata_from_proto(message.messages_list[0].metadata)
        if reply.src_node_id != member.node_id:
            raise RefusedError(403, "another-site's-name")
        ids = object_ids(message.message_object_trees[0])
        if ids[-1] != reply.message_id or not all(map(is_valid_sha256_hash, ids)):
            raise RefusedError(400, "object-ids")
        if len(ids) > MOST_OBJECTS:
            raise RefusedError(413, "too-many-objects")
        if not self._links.expects(reply):
            raise RefusedError(409, "not-expected")
        size = request.headers.get(UPLOAD_HEADER, "")
        num_bytes = int(size) if size.isascii() and size.isdigit() else None
        if not self._gate.enter(member.name, reply.message_id, num_bytes):
            raise RefusedError(503, "another-site-is-sending")
        try:
            answer = fleet_handlers.push_messages(message, self._links)
        except BaseException:
            self._gate.leave(reply.message_id)
            raise
        if reply.message_id not in self._links.message_res_store:
            self._gate.leave(reply.message_id)
            raise RefusedError(409, "not-stored")
        member.uploading = reply.message_id
        self._go_on(member, reply, answer, num_bytes or 0)
        if not answer.objects_to_push:
            self._gate.leave(reply.message_id)
        return answer

    def _go_on(
        self, member: Member, reply: Metadata, answer: Any, num_bytes: int
    ) -> None:
        """Make room for an upload, behind the pieces that came before it broke off."""
        rest, links = self._gate.take_rest(member.name), self._links
        if not isinstance(rest, Rest):
            rest = Rest(Landing(num_bytes), {})
        links.landings[reply.message_id] = rest.landing
        wanted = [
            object_id
            for object_id in answer.objects_to_push
            if object_id not in rest.pieces
            or not links.store_object(
                reply.run_id, answer.session_id, object_id, rest.pieces[object_id]
            )
        ]
        del answer.objects_to_push[:]
        answer.objects_to_push.extend(wanted)

    async def _store(self, member: Member, pushed: objects.Pushed) -> Any:
        session = self._links.session_of(member.uploading)
        landing = self._links.landings.get(member.uploading)
        if not session or landing is None or pushed.fields.session_id != session:
            raise RefusedError(409, "no-such-upload")

        def store() -> Any:
            stored: Any = pushed.landed(landing)
            return fleet_handlers.push_object(stored, self._links)

        if pushed.num_bytes > objects.SMALL_BYTES:  # hashing it takes a while
            answer = await asyncio.to_thread(store)
        else:
            answer = store()
        if self._links.is_whole(member.uploading):
            self._gate.complete(member.uploading)
        return answer

    def _give(self, member: Member, message: Any) -> Response:
        if message.object_id not in member.readable:
            raise RefusedError(404, "not-your-object")
        content = self._links.get_object(message.run_id, message.object_id)
        return objects.answered(content is not None, content or b"")


def _response(reply: Any) -> Response:
    whole = isinstance(reply, Response)
    return reply if whole else Response(200, reply.SerializeToString())


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return min(seconds, MAX_WAIT_S) if seconds > 0 else 0.0
