"""Who the control channel hears, and how a caller learns why it is not heard."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from guilder_server.console.control import ControlClient
from guilder_shared import certificates
from guilder_shared.errors import (
    EnrolmentError,
    GuilderError,
    NetworkError,
    StudyError,
)

Place = Any  # the fixture `place`; see conftest.py


def test_a_site_may_not_control_runs(place: Place) -> None:
    site = place.client(
        key=place.site / "site.key", certificate=place.site / "site.pem"
    )

    with site, pytest.raises(EnrolmentError) as caught:
        site.submit(b"{}")

    assert caught.value.error_id == "GLD-E030"
    assert "'bank-a'" in caught.value.what
    assert place.runs.submitted == []


def test_the_server_itself_may_not_control_runs(place: Place) -> None:
    server = place.client(
        key=place.folder / "server.key", certificate=place.folder / "server.pem"
    )

    with server, pytest.raises(GuilderError) as caught:
        server.list()

    assert caught.value.error_id in {"GLD-E030", "GLD-N052"}


@pytest.mark.attack(
    "a stranger", "an operator's certificate of another consortium", "GLD-N052"
)
def test_an_operator_of_another_consortium_is_refused(
    place: Place, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    certificates.init_local_sites(other, ["bank-a"])
    stranger = place.client(
        key=other / "server" / "operator.key",
        certificate=other / "server" / "operator.pem",
    )

    with stranger, pytest.raises(NetworkError) as caught:
        stranger.submit(b"{}")

    assert caught.value.error_id == "GLD-N052"
    assert place.runs.submitted == []


@pytest.mark.attack("a server", "playing the server for an operator", "GLD-N051")
def test_a_server_of_another_consortium_is_not_believed(
    place: Place, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    certificates.init_local_sites(other, ["bank-a"])
    client = place.client(authority=other / "server" / "ca.pem")

    with client, pytest.raises(NetworkError) as caught:
        client.submit(b"{}")

    assert caught.value.error_id == "GLD-N051"
    assert place.runs.submitted == []


def test_who_shows_no_certificate_is_not_heard(place: Place) -> None:
    credentials = grpc.ssl_channel_credentials((place.folder / "ca.pem").read_bytes())
    with grpc.secure_channel(f"localhost:{place.server.port}", credentials) as channel:
        call = channel.unary_unary("/guilder.control.v1.Control/List")

        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_nobody_at_the_port_is_told_with_the_address(place: Place) -> None:
    port = place.server.port
    place.server.stop()

    with place.client(port=port) as client, pytest.raises(NetworkError) as caught:
        client.list()

    assert caught.value.error_id == "GLD-N050"
    assert f"localhost:{port}" in caught.value.what
    assert caught.value.exit_code == 3


def test_a_taken_port_is_refused_and_not_shared(place: Place) -> None:
    with pytest.raises(NetworkError) as caught:
        place.start(place.server.port)

    assert caught.value.error_id == "GLD-N054"


def test_loopback_is_reached_past_a_proxy(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)

    with place.client() as client:
        assert client.list()


def test_a_study_larger_than_any_is_refused(
    place: Place, client: ControlClient
) -> None:
    with pytest.raises(NetworkError):
        client.submit(b" " * (6 << 20))

    assert place.runs.submitted == []


def test_without_operator_keys_there_is_no_client(place: Place) -> None:
    settings = place.settings.model_copy(update={"operator": None})

    with pytest.raises(StudyError) as caught:
        ControlClient.from_settings(settings)

    assert caught.value.error_id == "GLD-C050"


def test_a_port_left_to_chance_cannot_be_asked(place: Place) -> None:
    chosen = place.settings.server.model_copy(update={"control_port": 0})
    settings = place.settings.model_copy(update={"server": chosen})

    with pytest.raises(StudyError) as caught:
        ControlClient.from_settings(settings)

    assert caught.value.error_id == "GLD-C051"


def test_a_key_that_others_may_read_is_not_used(place: Place) -> None:
    (place.folder / "operator.key").chmod(0o644)

    with pytest.raises(EnrolmentError, match="0644"):
        place.client()
