"""Objects in and out of the hub, as protobuf writes them and without its copies.

A pushed object is read where it was received, and a pulled one is sent from where it
is stored. This module knows no site and no study.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from flwr.proto.message_pb2 import PullObjectResponse, PushObjectRequest
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from google.protobuf.message import DecodeError

from guilder_server.edge import Response
from guilder_shared import varints
from guilder_shared.pieces import Content, Landing, Piece

SMALL_BYTES: Final = 64 * 1024  # below, copies cost nothing
OBJECT_CONTENT: Final = PullObjectResponse.OBJECT_CONTENT_FIELD_NUMBER
PUSHED_CONTENT: Final = PushObjectRequest.OBJECT_CONTENT_FIELD_NUMBER
BEFORE_CONTENT: Final = 1024  # bytes of the fields before it; they take about 90


class WrongObjectError(ValueError):
    """An object that is none, or not the one that it is said to be."""


@dataclass(frozen=True)
class Pushed:
    """A `PushObjectRequest` whose content lies in the pieces in which it came.

    Attributes:
        fields: All but the content.
        parts: The content, in order.
        num_bytes: Of the content.
    """

    fields: PushObjectRequest
    parts: Sequence[memoryview]
    num_bytes: int

    @property
    def node(self) -> Any:
        """Who says to send it."""
        return self.fields.node

    def landed(self, landing: Landing) -> "Stored":
        """The object in its place.

        Raises:
            WrongObjectError: Its bytes have another name.
        """
        try:
            content = landing.put(self.parts)
        except ValueError as error:
            raise WrongObjectError(str(error)) from None
        if isinstance(content, Piece) and content.object_id() != self.fields.object_id:
            raise WrongObjectError("a piece of another name")
        return Stored(self.fields, content)


@dataclass(frozen=True)
class Stored:
    """A pushed object as Flower's handler reads it."""

    fields: PushObjectRequest
    object_content: Content

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fields, name)


def pushed(pieces: Sequence[bytes]) -> Pushed:
    """Read a request to store an object; only what is short is copied.

    Raises:
        DecodeError: It is none.
    """
    num_bytes = sum(map(len, pieces))
    found = _content(pieces) if num_bytes > SMALL_BYTES else None
    if found is None:
        fields = PushObjectRequest.FromString(b"".join(pieces))
        content = fields.object_content
        fields.ClearField("object_content")
        return Pushed(fields, [memoryview(content)], len(content))
    tag, start, stop = found
    around = [*_between(pieces, 0, tag), *_between(pieces, stop, num_bytes)]
    fields = PushObjectRequest.FromString(b"".join(around))
    if fields.object_content:
        raise DecodeError("two contents")
    return Pushed(fields, _between(pieces, start, stop), stop - start)


def _content(pieces: Sequence[bytes]) -> tuple[int, int, int] | None:
    """Where the content's head, itself and what follows begin, in the whole request.

    None if it is not where Flower writes it.
    """
    start = b""
    for piece in pieces:
        start += piece[: BEFORE_CONTENT - len(start)]
        if len(start) == BEFORE_CONTENT:
            break
    found = varints.find(start, PUSHED_CONTENT)
    if found is None or found[1] + found[2] > sum(map(len, pieces)):
        return None
    return found[0], found[1], found[1] + found[2]


def _between(pieces: Sequence[bytes], start: int, stop: int) -> list[memoryview]:
    parts, place = [], 0
    for piece in pieces:
        first, last = max(start - place, 0), min(stop - place, len(piece))
        if first < last:
            parts.append(memoryview(piece)[first:last])
        place += len(piece)
    return parts


def answered(found: bool, content: Content) -> Response:
    """What a caller gets who asked for an object, sent from where it is stored.

    Args:
        found: Whether it is known at all.
        content: Empty if it is not there yet.
    """
    head = PullObjectResponse(object_found=found, object_available=bool(content))
    if not content:
        return Response(200, head.SerializeToString())
    start = head.SerializeToString() + varints.head_of(OBJECT_CONTENT, len(content))
    if isinstance(content, Piece):
        return Response(200, start + content.head, shared=content.body)
    return Response(200, start, shared=memoryview(content))


class Objects(InMemoryObjectStore):
    """Flower's store in memory; pieces in it lie where they landed."""

    def put(self, object_id: str, object_content: Content) -> None:
        """Store an object; of a piece the name was checked when it landed."""
        if isinstance(object_content, bytes):
            super().put(object_id, object_content)
            return
        with self.lock_store:
            entry = self.store[object_id]
            if not entry.is_available:
                entry.content = object_content  # type: ignore[assignment]
                entry.is_available = True
