"""The control channel over real TLS sockets: who is heard, and what errors become."""

import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from guilder_server.control import MOST_WATCHERS, ControlClient, ControlServer
from guilder_server.settings import ServerFile
from guilder_shared import certificates
from guilder_shared.errors import (
    BudgetSpent,
    EnrolmentError,
    GuilderError,
    NetworkError,
    RunFailed,
    StudyError,
)

SERVER_TOML = """\
schema = 1
[server]
url = "https://localhost:8443"
host = "127.0.0.1"
port = 0
control_port = 0
storage = "state"
[keys]
key = "server.key"
certificate = "server.pem"
authority = "ca.pem"
[operator]
key = "operator.key"
certificate = "operator.pem"
[sites]
folder = "sites"
"""


class Runs:
    """A handler in memory: `events` is fed by the test, None ends the run."""

    def __init__(self) -> None:
        self.submitted: list[tuple[bytes, list[str]]] = []
        self.stopped: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.more: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.watchers = 0
        self.error: Exception | None = None

    def submit(self, study: bytes, only: Sequence[str]) -> str:
        if self.error:
            raise self.error
        self.submitted.append((study, list(only)))
        return f"run-{len(self.submitted)}"

    def watch(
        self, run_id: str, *, gone: threading.Event | None = None
    ) -> Iterator[dict[str, Any]]:
        assert gone is not None
        if run_id != "run-1":
            raise RunFailed("GLD-R010", f"there is no run {run_id!r}", fix="look")
        yield from self.events
        self.watchers += 1
        try:
            while not gone.is_set():
                try:
                    event = self.more.get(timeout=0.02)
                except queue.Empty:
                    continue
                if event is None:
                    return
                self.events.append(event)
                yield event
        finally:
            self.watchers -= 1

    def list(self) -> list[dict[str, Any]]:
        return [{"run_id": "run-1", "state": "running"}]

    def resume(self, run_id: str) -> None:
        raise RunFailed("GLD-R011", f"run {run_id} is running; nothing to do")

    def stop_run(self, run_id: str) -> None:
        self.stopped.append(run_id)


class Place:
    """One consortium's folder, its handler, and a server that can be restarted."""

    def __init__(self, folder: Path) -> None:
        certificates.init_local_sites(folder, ["bank-a"])
        self.folder = folder / "server"
        self.site = folder / "sites" / "bank-a"
        (self.folder / "server.toml").write_text(SERVER_TOML)
        self.settings = ServerFile.load(self.folder / "server.toml")
        self.runs = Runs()
        self.server = self.start(0)

    def start(self, port: int) -> ControlServer:
        chosen = self.settings.server.model_copy(update={"control_port": port})
        self.settings = self.settings.model_copy(update={"server": chosen})
        server = ControlServer(self.settings, self.runs)
        server.start()
        chosen = chosen.model_copy(update={"control_port": server.port})
        self.settings = self.settings.model_copy(update={"server": chosen})
        return server

    def client(self, **changes: Any) -> ControlClient:
        arguments: dict[str, Any] = {
            "host": "localhost",
            "port": self.server.port,
            "key": self.folder / "operator.key",
            "certificate": self.folder / "operator.pem",
            "authority": self.folder / "ca.pem",
        }
        return ControlClient(**arguments | changes)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.server.stop()


@pytest.fixture
def client(place: Place) -> Iterator[ControlClient]:
    with ControlClient.from_settings(place.settings) as client:
        yield client


def test_an_operator_submits_lists_and_stops(
    place: Place, client: ControlClient
) -> None:
    run_id = client.submit(b'{"a":1}', ["bank-a"])
    client.stop(run_id)

    assert place.runs.submitted == [(b'{"a":1}', ["bank-a"])]
    assert client.list() == [{"run_id": "run-1", "state": "running"}]
    assert place.runs.stopped == ["run-1"]


def test_events_are_watched_to_the_end_of_the_run(
    place: Place, client: ControlClient
) -> None:
    for event in ({"kind": "round", "round": 1}, {"kind": "finished"}, None):
        place.runs.more.put(event)

    events = list(client.watch("run-1"))

    assert events == [{"kind": "round", "round": 1}, {"kind": "finished"}]


def test_a_watch_goes_on_after_the_server_restarted_and_repeats_nothing(
    place: Place, client: ControlClient
) -> None:
    watch = client.watch("run-1")
    place.runs.more.put({"round": 1})
    first = next(watch)

    place.server.stop()
    place.server = place.start(place.server.port)
    place.runs.more.put({"round": 2})
    place.runs.more.put(None)

    assert [first, *watch] == [{"round": 1}, {"round": 2}]


def test_a_watch_gives_up_when_the_server_stays_away(
    place: Place, client: ControlClient
) -> None:
    watch = client.watch("run-1", patience_s=0.3)
    place.runs.more.put({"round": 1})
    next(watch)
    place.server.stop()

    with pytest.raises(NetworkError) as caught:
        next(watch)

    assert caught.value.error_id == "GLD-N050"


def test_a_watcher_that_leaves_gives_its_thread_back(
    place: Place, client: ControlClient
) -> None:
    for _ in range(MOST_WATCHERS + 2):
        watch = client.watch("run-1")
        place.runs.more.put({"round": 1})
        next(watch)
        watch.close()
        wait_until(lambda: place.runs.watchers == 0)

    assert client.list()


def test_watchers_do_not_take_the_threads_of_other_calls(
    place: Place, client: ControlClient
) -> None:
    place.runs.events.append({"round": 1})
    watches = [client.watch("run-1") for _ in range(MOST_WATCHERS)]
    for watch in watches:
        next(watch)

    with pytest.raises(NetworkError) as caught:
        next(client.watch("run-1"))

    assert caught.value.error_id == "GLD-N057"
    assert client.list()


def test_an_error_crosses_the_channel_whole_with_its_exit_code(
    place: Place, client: ControlClient
) -> None:
    place.runs.error = BudgetSpent("GLD-B003", "no room: é", why="spent", fix="wait")

    with pytest.raises(BudgetSpent) as caught:
        client.submit(b"{}")

    error = caught.value
    assert (error.error_id, error.what, error.why, error.fix, error.exit_code) == (
        "GLD-B003",
        "no room: é",
        "spent",
        "wait",
        4,
    )


def test_an_error_in_a_watch_crosses_too(client: ControlClient) -> None:
    with pytest.raises(RunFailed, match="there is no run 'nobody'"):
        next(client.watch("nobody"))


def test_an_error_too_long_for_a_header_is_cut_not_lost(
    place: Place, client: ControlClient
) -> None:
    place.runs.error = StudyError("GLD-C010", "é" * 100_000, fix="f" * 100_000)

    with pytest.raises(StudyError) as caught:
        client.submit(b"{}")

    assert caught.value.error_id == "GLD-C010"


def test_a_bug_in_the_server_is_told_without_its_text(
    place: Place, client: ControlClient
) -> None:
    place.runs.error = ZeroDivisionError("secret")

    with pytest.raises(RunFailed) as caught:
        client.submit(b"{}")

    assert "secret" not in str(caught.value)


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


def wait_until(true: Any) -> None:
    pause = threading.Event()
    for _ in range(500):
        if true():
            return
        pause.wait(0.02)
    raise AssertionError("waited 10 s in vain")


def test_a_server_that_lies_cannot_move_the_operators_cursor(
    place: Place, client: ControlClient
) -> None:
    error = StudyError("GLD-C010", "\x1b[2J\nall is well", why="\r\x07", fix="\u202e")
    place.runs.error = error

    with pytest.raises(StudyError) as caught:
        client.submit(b"{}")

    told = caught.value
    assert (told.what, told.why, told.fix) == ("?[2J all is well", " ?", "?")


@pytest.mark.parametrize(
    "error_id", ["GLD-C\x1b[2J", "GLD-C01", "GLD-Z001", "", "CCCCC"]
)
def test_an_error_with_an_id_of_its_own_making_is_told_as_a_bug(
    place: Place, client: ControlClient, error_id: str
) -> None:
    error = StudyError("GLD-C010", "what")
    error.error_id = error_id
    place.runs.error = error

    with pytest.raises(RunFailed) as caught:
        client.submit(b"{}")

    assert caught.value.error_id == "GLD-R012"
