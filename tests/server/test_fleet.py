"""What Flower refuses inside the wall does not sound as if a site were expelled."""

import asyncio

import pytest
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.supercore.error import FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP

from guilder_server.edge import Request
from guilder_server.fleet import FLEET, Fleet, answered
from guilder_server.links import Links
from guilder_server.uploads import UploadGate

CODES = list(API_ERROR_MAP)


def test_flower_itself_answers_403_to_some_errors() -> None:
    assert 403 in {spec.http_status_code for spec in API_ERROR_MAP.values()}


@pytest.mark.parametrize("code", CODES)
def test_an_error_of_flowers_never_tells_a_site_to_leave_for_good(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = UploadGate(1, 1)
    fleet = Fleet(Links(gate), gate, lambda _site: b"{}")
    fleet.admit("a", b"key")

    def refuse(*_: object) -> None:
        raise FlowerError(code, "an ended run")

    monkeypatch.setattr(fleet, "_authenticate", refuse)
    request = Request("a", b"key", FLEET + "pull-object", {}, b"")

    answer = asyncio.run(fleet.answer(request))

    assert answer.status != 403


@pytest.mark.parametrize("num_bytes", [0, 1, 127, 128, 16_383, 16_384, 5_242_880])
def test_an_object_sent_from_where_it_lies_is_what_protobuf_would_send(
    num_bytes: int,
) -> None:
    content = bytes(range(256)) * (num_bytes // 256) + bytes(num_bytes % 256)
    reply = PullObjectResponse(
        object_found=True, object_available=True, object_content=content
    )
    whole = reply.SerializeToString()

    answer = answered(reply, content)

    assert answer.body + answer.shared == whole
    assert answer.shared is content or not content
