"""No socket of a hub or a node leaves this machine, and nothing is looked up."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROUND = """
import ipaddress, sys, threading, time
seen = []
def trace(event, args):
    if event in {"socket.connect", "socket.bind", "socket.sendto"}:
        seen.append(args[1])
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        seen.append((args[0],))
sys.addaudithook(trace)

from pathlib import Path
from guilder_server.hub import Hub
from guilder_client.node import Node
from guilder_shared import certificates, tls
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

folder = Path(sys.argv[1])
roster = certificates.roster(folder / "server" / "sites")
sites = {n: s.node_key for n, s in roster.items()}
hub = Hub(("127.0.0.1", 0), tls.server_context(folder / "server"), sites)
hub.start()
app = ClientApp()
@app.train()
def train(message, context):
    return Message(RecordDict(), reply_to=message)
stop = threading.Event()
node = Node(f"https://127.0.0.1:{hub.port}", folder / "sites" / "alder", app, {})
threading.Thread(target=node.run_forever, args=(stop,), daemon=True).start()
grid = hub.grid("run-1")
while not grid.get_node_ids():
    time.sleep(0.01)
message = grid.create_message(RecordDict(), "train", grid.get_node_ids()[0], "1")
assert grid.send_and_receive([message], timeout=20)[0].has_content()
time.sleep(1)
stop.set()
hub.stop()
print("seen", len(seen))
for address in seen:
    if isinstance(address, tuple) and address[0] not in {"", "localhost", None}:
        if not ipaddress.ip_address(address[0]).is_loopback:
            print("left", address)
"""


@pytest.mark.timeout(60)
def test_a_round_opens_no_socket_beyond_loopback(
    consortium: Any, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ROUND, str(consortium.folder)],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},  # no switch from outside
        timeout=50,
    )

    lines = done.stdout.splitlines()
    assert int(lines[0].removeprefix("seen ")) >= 2  # the trace does see sockets
    assert lines[1:] == []


@pytest.mark.parametrize("room", ["shared", "server", "client"])
def test_a_room_switches_flowers_telemetry_off_before_flower_is_there(
    room: str,
) -> None:
    check = (
        f"import guilder_{room}, os, sys; assert 'flwr' not in sys.modules; "
        "print(os.environ['FLWR_TELEMETRY_ENABLED'], "
        "os.environ['FLWR_DISABLE_UPDATE_CHECK'])"
    )

    done = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        check=True,
        env={"FLWR_TELEMETRY_ENABLED": "1"},
    )

    assert done.stdout == "0 1\n"
