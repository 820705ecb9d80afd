"""The resident node: through restarts, broken apps and wrong clocks."""

import datetime
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from guilder_client import outage
from guilder_client.node import TURN_FAILED, UNKNOWN_REQUEST, Node
from guilder_server.hub import LOST
from guilder_shared.errors import EnrolmentError, NetworkError

pytestmark = pytest.mark.timeout(60)


def echo(act: Callable[[], object] = lambda: None) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        act()
        config = ConfigRecord({"site": str(context.node_config["site"])})
        return Message(RecordDict({"said": config}), reply_to=message)

    return app


def ask(grid: Any, kind: str = "train") -> list[str]:
    messages = [
        grid.create_message(RecordDict(), kind, node_id, "1", 60.0)
        for node_id in grid.get_node_ids()
    ]
    return list(grid.push_messages(messages))


def online(hub: Any, run_id: str = "run-1") -> Any:
    grid = hub.grid(run_id)
    return grid if list(grid.get_node_ids()) else None


def test_the_app_is_called_with_the_nodes_own_configuration(
    consortium: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    consortium.node("alder", hub.port, echo())
    grid = eventually(lambda: online(hub))

    ids = ask(grid)
    [reply] = eventually(lambda: list(grid.pull_messages(ids)))

    assert reply.content.config_records["said"]["site"] == "alder"


def test_what_an_app_raises_leaves_as_one_constant_word(
    consortium: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("patient 4711 has 12.5")

    hub = consortium.hub()
    consortium.node("alder", hub.port, echo(fail))
    grid = eventually(lambda: online(hub))

    ids = ask(grid)
    [reply] = eventually(lambda: list(grid.pull_messages(ids)))

    assert reply.error.reason == TURN_FAILED == "turn-failed"
    assert "ValueError at " in caplog.text
    assert "4711" not in caplog.text


@pytest.mark.parametrize("kind", ["query.shell", "evaluate", "train.other"])
def test_an_unknown_request_never_reaches_the_app(
    consortium: Any, eventually: Any, kind: str
) -> None:
    calls: list[str] = []

    def app(message: Message, context: Context) -> Message:
        calls.append(message.metadata.message_type)
        return Message(RecordDict(), reply_to=message)

    hub = consortium.hub()
    consortium.node("alder", hub.port, app)
    grid = eventually(lambda: online(hub))

    ids = ask(grid, kind)
    [reply] = eventually(lambda: list(grid.pull_messages(ids)))

    assert reply.error.reason == UNKNOWN_REQUEST
    assert calls == []


def test_a_node_goes_on_after_an_app_that_failed(
    consortium: Any, eventually: Any
) -> None:
    results = iter([RuntimeError, None])

    def sometimes() -> None:
        if error := next(results):
            raise error

    hub = consortium.hub()
    consortium.node("alder", hub.port, echo(sometimes))
    grid = eventually(lambda: online(hub))
    first = ask(grid)
    eventually(lambda: list(grid.pull_messages(first)))

    second = ask(grid)
    [reply] = eventually(lambda: list(grid.pull_messages(second)))

    assert reply.has_content()


def test_a_message_reaches_a_waiting_node_without_a_poll_between(
    consortium: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    pulls: list[int] = []
    real = hub._fleet._pull

    async def counted(*args: Any) -> Any:
        pulls.append(1)
        return await real(*args)

    hub._fleet._pull = counted
    consortium.node("alder", hub.port, echo())
    grid = eventually(lambda: online(hub))
    time.sleep(0.5)

    ids = ask(grid)
    eventually(lambda: list(grid.pull_messages(ids)))

    assert len(pulls) <= 2  # one open all the time, one after the reply


def test_a_node_comes_online_again_when_the_server_comes_back(
    consortium: Any, eventually: Any
) -> None:
    seen: list[float] = []
    hub = consortium.hub()
    consortium.node(
        "alder", hub.port, echo(), on_online=lambda: seen.append(time.monotonic())
    )
    eventually(lambda: online(hub))
    hub.stop()
    time.sleep(1.0)

    again = consortium.hub(port=hub.port)
    grid = eventually(lambda: online(again))
    ids = ask(grid)
    [reply] = eventually(lambda: list(grid.pull_messages(ids)))

    assert reply.has_content()
    assert len(seen) == 2


def test_a_turn_that_was_running_when_the_server_went_is_asked_for_again(
    consortium: Any, eventually: Any
) -> None:
    started, hold = threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        hold.wait(20)

    hub = consortium.hub()
    consortium.node("alder", hub.port, echo(slow))
    ask(eventually(lambda: online(hub)))
    assert started.wait(10)
    hub.stop()
    again = consortium.hub(port=hub.port)
    hold.set()  # its reply is to a message that nobody knows any more

    grid = eventually(lambda: online(again))
    ids = ask(grid)
    [reply] = eventually(lambda: list(grid.pull_messages(ids)))

    assert reply.has_content()


@pytest.mark.parametrize(
    ("shift_s", "said"), [(60, "60 s ahead of"), (-400, "400 s behind")]
)
def test_a_wrong_clock_is_an_error_that_names_the_seconds(
    consortium: Any, monkeypatch: pytest.MonkeyPatch, shift_s: int, said: str
) -> None:
    header: Any = import_module("flwr.supernode.node_auth_http_interceptor")
    real = header.now
    shift = datetime.timedelta(seconds=shift_s)
    monkeypatch.setattr(header, "now", lambda: real() + shift)
    clock = SimpleNamespace(
        time=lambda: round(time.time()) + shift_s,
        monotonic=time.monotonic,
    )
    monkeypatch.setattr(outage, "time", clock)
    hub = consortium.hub()
    url = f"https://127.0.0.1:{hub.port}"
    node = Node(url, consortium.site("alder"), echo(), {"site": "alder"})

    with pytest.raises(NetworkError) as caught:
        node.run_forever(threading.Event())

    assert caught.value.error_id == "GLD-N010"
    seconds, _, direction = said.partition(" s ")
    named = int(caught.value.what.split(" is ")[1].split(" s ")[0])
    assert abs(named - int(seconds)) <= 2  # the Date header has whole seconds
    assert direction in caught.value.what


def test_a_site_that_is_not_in_the_roster_is_told_so(consortium: Any) -> None:
    (consortium.folder / "server" / "sites" / "alder.pem").unlink()
    hub = consortium.hub()
    url = f"https://127.0.0.1:{hub.port}"
    node = Node(url, consortium.site("alder"), echo(), {"site": "alder"})

    with pytest.raises(EnrolmentError) as caught:
        node.run_forever(threading.Event())

    assert caught.value.error_id == "GLD-E013"


def test_a_tls_alert_about_our_certificate_is_an_error_not_a_retry(
    consortium: Any, tmp_path: Path
) -> None:
    from guilder_shared import certificates

    certificates.init_local_sites(tmp_path / "other", ["alder"], ["127.0.0.1"])
    server = consortium.folder / "server"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server / "server.pem", server / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tmp_path / "other" / "server" / "ca.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        while True:
            try:
                plain, _ = listener.accept()
                context.wrap_socket(plain, server_side=True)
            except ssl.SSLError:
                plain.close()
            except OSError:
                return

    threading.Thread(target=refuse, daemon=True).start()
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    node = Node(url, consortium.site("alder"), echo(), {})

    with pytest.raises(EnrolmentError) as caught:
        node.run_forever(threading.Event())
    listener.close()

    assert caught.value.error_id == "GLD-E014"


def test_a_proxy_variable_is_not_used_on_loopback(
    consortium: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    hub = consortium.hub()

    consortium.node("alder", hub.port, echo())

    assert eventually(lambda: online(hub))


# A node in a process of its own, killed for good

NODE = """
import sys, threading, time
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from guilder_client.node import Node
app = ClientApp()
@app.train()
def train(message, context):
    print("turn", flush=True)
    time.sleep(float(sys.argv[3]))
    return Message(RecordDict(), reply_to=message)
node = Node(sys.argv[1], Path(sys.argv[2]), app, {"site": "alder"},
            on_online=lambda: print("online", flush=True))
node.run_forever(threading.Event())
"""


@pytest.fixture
def node_process(consortium: Any) -> Iterator[Callable[..., Any]]:
    children: list[subprocess.Popen[str]] = []

    def start(port: int, turn_s: float) -> subprocess.Popen[str]:
        url, keys = f"https://127.0.0.1:{port}", str(consortium.site("alder"))
        child = subprocess.Popen(
            [sys.executable, "-c", NODE, url, keys, str(turn_s)],
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()


def test_a_node_killed_in_mid_turn_is_online_and_asked_again_after_its_restart(
    consortium: Any, eventually: Any, node_process: Callable[..., Any]
) -> None:
    hub = consortium.hub()
    first = node_process(hub.port, turn_s=60)
    grid = eventually(lambda: online(hub))
    ids = ask(grid)
    assert [first.stdout.readline() for _ in range(2)] == ["online\n", "turn\n"]

    os.kill(first.pid, signal.SIGKILL)
    second = node_process(hub.port, turn_s=0)
    assert second.stdout.readline() == "online\n"  # its old lease still ran
    [lost] = eventually(lambda: list(grid.pull_messages(ids)))
    again = ask(grid)
    [reply] = eventually(lambda: list(grid.pull_messages(again)))

    assert lost.error.code == LOST
    assert reply.has_content()
