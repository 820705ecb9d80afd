"""What a site's requests tell: every field of them, by name, kind and size.

Reads requests of Flower's Fleet service as they go over the wire and lists what is in
them, down to the tensors of an update. It knows nobody's secrets and shows no value.

Review, mathematics: names, kinds and sizes are the study's and the protocol's; no value
is looked at but those that say what a field is.
Review, crash order: keeps nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from flwr.app import Message
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from google.protobuf.message import Message as Protobuf

from guilder_shared import wire

EVERY_REQUEST: Final = "every request"
CALLS: Final[dict[str, type[Protobuf]]] = {
    "activate-node": fleet_pb2.ActivateNodeRequest,
    "deactivate-node": fleet_pb2.DeactivateNodeRequest,
    "send-node-heartbeat": heartbeat_pb2.SendNodeHeartbeatRequest,
    "pull-messages": fleet_pb2.PullMessagesRequest,
    "pull-object": message_pb2.PullObjectRequest,
    "confirm-message-received": message_pb2.ConfirmMessageReceivedRequest,
    "push-messages": fleet_pb2.PushMessagesRequest,
    "push-object": message_pb2.PushObjectRequest,
}


@dataclass(frozen=True)
class Sent:
    """One request: path, names of its headers, and its body."""

    path: str
    headers: tuple[str, ...]
    body: bytes

    @property
    def call(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, order=True)
class Field:
    """One thing that leaves.

    Attributes:
        where: "every request", a call of the Fleet service, or "reply to TYPE".
        name: Of the field; `update.TENSOR` for a tensor of a turn's update.
        kind: Of its value, with the shape of an array.
        num_bytes: Where the size follows from the study; None where it may differ.
    """

    where: str
    name: str
    kind: str
    num_bytes: int | None = None


def fields(sent: Iterable[Sent]) -> list[Field]:
    """Every field of some requests, each once, in order."""
    found: set[Field] = set()
    contents: dict[str, bytes] = {}
    announced: list[tuple[str, str]] = []
    for each in sent:
        found |= {Field(EVERY_REQUEST, f"header {n}", "text") for n in each.headers}
        request = CALLS[each.call]()
        request.ParseFromString(each.body)
        found |= {Field(each.call, name, kind) for name, kind in _parts(request)}
        if isinstance(request, fleet_pb2.PushMessagesRequest):
            for message in request.messages_list:
                metadata = message.metadata
                announced.append((metadata.message_id, metadata.message_type))
        elif isinstance(request, message_pb2.PushObjectRequest):
            contents[request.object_id] = request.object_content
    for message_id, message_type in announced:
        found |= set(_reply(message_id, message_type, contents))
    return sorted(found)


def _reply(
    message_id: str, message_type: str, contents: dict[str, bytes]
) -> Iterator[Field]:
    where = f"reply to {message_type}"
    reply = inflate_object_from_contents(
        message_id, dict(contents), keep_object_contents=True
    )
    assert isinstance(reply, Message), type(reply)
    if reply.has_error():
        yield Field(where, "error", "text")
        return
    for record, config in reply.content.config_records.items():
        for name, value in config.items():
            own = name if record == wire.FIELDS else f"{record}.{name}"
            yield Field(where, own, _kind(value))
    for record, arrays in reply.content.array_records.items():
        for name, array in arrays.items():
            kind = f"{array.dtype} of shape {tuple(array.shape)}"
            yield Field(where, f"{record}.{name}", kind, array.shape[0])
            yield from _tensors(where, array.numpy().tobytes())
    for record, _metrics in reply.content.metric_records.items():
        yield Field(where, record, "metrics")


def _tensors(where: str, packed: bytes) -> Iterator[Field]:
    from safetensors.numpy import load

    for name, tensor in load(packed).items():
        kind = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        yield Field(where, f"update.{name}", kind, tensor.nbytes)


def _parts(message: Protobuf, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and kinds of the fields that are set, nested ones with dots."""
    for descriptor, value in message.ListFields():
        name = f"{prefix}{descriptor.name}"
        values = list(value) if descriptor.is_repeated else [value]
        for each in values:
            if isinstance(each, Protobuf):
                again = descriptor.message_type is message.DESCRIPTOR  # a tree
                yield from _parts(each, prefix if again else f"{name}.")
            else:
                yield name, _kind(each)


def _kind(value: Any) -> str:
    names = {bool: "yes or no", int: "number", float: "number", str: "text"}
    return names.get(type(value), "bytes")
