"""Objects in and out of the hub: what protobuf would write, however it is cut."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app.message.arraychunk import ArrayChunk
from flwr.proto.message_pb2 import PullObjectResponse, PushObjectRequest
from flwr.proto.node_pb2 import Node
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from guilder_server import objects
from guilder_server.objects import WrongObjectError
from guilder_shared.pieces import Landing, Piece

LONG = objects.SMALL_BYTES + 1000


def request(content: bytes, name: str = "") -> PushObjectRequest:
    return PushObjectRequest(
        node=Node(node_id=2**63 + 5),
        run_id=2**64 - 1,
        object_id=name or hashlib.sha256(content).hexdigest(),
        object_content=content,
        session_id="a-session",
    )


def chunk(num_bytes: int) -> bytes:
    body = np.random.default_rng(1).bytes(num_bytes)
    return ArrayChunk(memoryview(body)).deflate()


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    start = 0
    for place in [*sorted(p % (len(data) + 1) for p in places), len(data)]:
        yield data[start:place]
        start = place


@given(
    num_bytes=st.sampled_from([0, 1, 300, LONG, 3 * LONG]),
    places=st.lists(st.integers(0, 4 * LONG), max_size=6),
)
def test_a_pushed_object_is_what_protobuf_reads_however_it_is_cut(
    num_bytes: int, places: list[int]
) -> None:
    content = bytes(num_bytes)
    sent = request(content)

    found = objects.pushed(list(cut(sent.SerializeToString(), places)))

    assert b"".join(found.parts) == content
    assert found.num_bytes == num_bytes
    sent.ClearField("object_content")
    assert found.fields == sent


@pytest.mark.parametrize("num_bytes", [1, 1000, LONG])
def test_a_pushed_piece_lands_under_its_name(num_bytes: int) -> None:
    content = chunk(num_bytes)
    pushed = objects.pushed([request(content).SerializeToString()])

    stored = pushed.landed(Landing(num_bytes))

    assert isinstance(stored.object_content, Piece)
    assert stored.object_content.head + stored.object_content.body == content
    assert stored.session_id == "a-session"


def test_a_piece_of_another_name_is_refused() -> None:
    pushed = objects.pushed([request(chunk(LONG), "0" * 64).SerializeToString()])

    with pytest.raises(WrongObjectError):
        pushed.landed(Landing(LONG))


@pytest.mark.parametrize("extra", [b"\x22\x03abc", b"\xff" * 11, b"\x0b"])
def test_what_is_no_request_is_refused(extra: bytes) -> None:
    whole = request(chunk(LONG)).SerializeToString()

    with pytest.raises(DecodeError):
        objects.pushed([whole + extra])


def test_a_content_longer_than_the_request_is_refused() -> None:
    whole = request(chunk(LONG)).SerializeToString()

    with pytest.raises(DecodeError):
        objects.pushed([whole[: LONG // 2], whole[LONG // 2 : -200]])


@pytest.mark.parametrize("num_bytes", [0, 1, 127, 128, 16_383, 16_384, 5_242_880])
@pytest.mark.parametrize("is_piece", [False, True])
def test_an_object_sent_from_where_it_lies_is_what_protobuf_would_send(
    num_bytes: int, is_piece: bool
) -> None:
    content = chunk(num_bytes) if is_piece else bytes(num_bytes)
    stored = Landing(num_bytes).put([memoryview(content)])
    whole = PullObjectResponse(
        object_found=True, object_available=bool(content), object_content=content
    )

    answer = objects.answered(True, stored)

    assert answer.body + answer.shared == whole.SerializeToString()
    if isinstance(stored, Piece):
        assert answer.shared.obj is stored.memory.obj  # no copy
