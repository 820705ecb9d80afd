"""What Flower refuses inside the wall does not sound as if a site were expelled."""

import asyncio

import pytest
from flwr.supercore.error import FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP

from guilder_server.edge import Request
from guilder_server.fleet import FLEET, Fleet
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
    request = Request("a", b"key", FLEET + "pull-object", {}, [b""])

    answer = asyncio.run(fleet.answer(request))

    assert answer.status != 403
