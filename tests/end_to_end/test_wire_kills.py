"""kill -9 of nodes and of the server at random moments: every round still ends."""

import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flwr.app import Message, RecordDict

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

NODE = """
import sys, threading, time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from guilder_client.node import Node
app = ClientApp()
@app.train()
def train(message, context):
    time.sleep(0.02)
    said = ConfigRecord({"site": str(context.node_config["site"])})
    return Message(RecordDict({"said": said}), reply_to=message)
node = Node(sys.argv[1], Path(sys.argv[2]), app, {"site": sys.argv[3]})
node.run_forever(threading.Event())
"""
ROUNDS = """
import sys, time
from pathlib import Path
from flwr.app import RecordDict
from guilder_server.hub import Hub
from guilder_shared.certificates import roster
from guilder_shared.tls import server_context
folder = Path(sys.argv[1])
sites = {n: s.node_key for n, s in roster(folder / "sites").items()}
hub = Hub(("127.0.0.1", int(sys.argv[2])), server_context(folder), sites)
hub.start()
grid = hub.grid("run-1")
while True:
    nodes = list(grid.get_node_ids())
    messages = [grid.create_message(RecordDict(), "train", n, "1", 60.0) for n in nodes]
    replies = grid.send_and_receive(messages, timeout=20)
    if len([r for r in replies if r.has_content()]) == 2:
        print("round", flush=True)
    time.sleep(0.01)
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    children = []

    def run(script: str, *args: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", script, *map(str, args)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        children.append(child)
        return child

    yield run
    for child in children:
        child.kill()
        child.wait()


def start_node(start: Start, consortium: Any, name: str, port: int) -> Any:
    return start(NODE, f"https://127.0.0.1:{port}", consortium.site(name), name)


def complete_round(
    hub: Any, grid: Any, names: set[str], act: Callable[[], None]
) -> None:
    """Ask until all have answered, and again those whose message was lost."""
    by_name = {name: node_id for node_id, name in hub.site_names().items()}
    missing, end = set(names), time.monotonic() + 60
    open_ids: dict[str, str] = {}
    while missing and time.monotonic() < end:
        online = set(grid.get_node_ids())
        for name in missing - set(open_ids.values()):
            if by_name[name] in online:
                message = grid.create_message(
                    RecordDict(), "train", by_name[name], "1", 60.0
                )
                open_ids[grid.push_messages([message])[0]] = name
        act()
        reply: Message
        for reply in grid.pull_messages(list(open_ids)):
            name = open_ids.pop(reply.metadata.reply_to_message_id)
            if reply.has_content():
                assert reply.content.config_records["said"]["site"] == name
                missing.discard(name)
        time.sleep(0.002)
    assert not missing


def test_every_round_ends_though_nodes_are_killed_at_random_moments(
    consortium: Any, eventually: Any, start: Start
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    chance = random.Random(seed)
    hub = consortium.hub()
    names = {"alder", "birch"}
    nodes = {name: start_node(start, consortium, name, hub.port) for name in names}
    grid = hub.grid("run-1")
    eventually(lambda: len(list(grid.get_node_ids())) == 2)

    for _ in range(20):
        victim = chance.choice(sorted(names))
        moment = time.monotonic() + chance.uniform(0, 0.08)
        doomed = [victim]

        def kill(doomed: list[str] = doomed, moment: float = moment) -> None:
            if doomed and time.monotonic() > moment:
                name = doomed.pop()
                os.kill(nodes[name].pid, signal.SIGKILL)
                nodes[name] = start_node(start, consortium, name, hub.port)

        complete_round(hub, grid, names, kill)

    assert (hub._links.num_message_ins(), hub._links.num_message_res()) == (0, 0)
    assert len(hub._links.object_store) == 0


def test_rounds_go_on_within_seconds_after_the_server_was_killed(
    consortium: Any, start: Start
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for name in ("alder", "birch"):
        start_node(start, consortium, name, port)

    for _ in range(5):
        server = start(ROUNDS, consortium.folder / "server", port)
        lines = [line_of(server) for _ in range(3)]
        server.kill()
        server.wait()

        assert lines == ["round\n"] * 3


def line_of(child: Any) -> str:
    ready, _, _ = select.select([child.stdout], [], [], 30)
    return str(child.stdout.readline()) if ready else "nothing for 30 s"
