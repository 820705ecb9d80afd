"""300 MB from anybody do not grow the server: a hub in its own process, measured."""

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest

from guilder_shared import tls

pytestmark = pytest.mark.timeout(60)

FLEET = "/v1/fleet/"
TOO_MUCH = 300 * 1024 * 1024
GROWTH_MIB = 20


HUB = """
import sys, threading
from pathlib import Path
from guilder_server.hub import Hub
from guilder_shared.certificates import roster
from guilder_shared.tls import server_context
folder = Path(sys.argv[1])
sites = {n: s.node_key for n, s in roster(folder / "sites").items()}
hub = Hub(("127.0.0.1", 0), server_context(folder), sites)
hub.start()
print(hub.port, flush=True)
threading.Event().wait()
"""


@pytest.fixture
def hub_process(consortium: Any) -> Iterator[tuple[int, psutil.Process]]:
    server = str(consortium.folder / "server")
    child = subprocess.Popen(
        [sys.executable, "-c", HUB, server], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    port = int(child.stdout.readline())
    yield port, psutil.Process(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def peak_growth_mib(process: psutil.Process, attack: Callable[[], None]) -> float:
    before = process.memory_info().rss
    peaks, ended = [before], threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            peaks.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        attack()
        time.sleep(0.2)
    finally:
        ended.set()
        watcher.join()
    return float(max(peaks) - before) / 2**20


def pieces(byte: bytes = b"\0") -> Iterator[bytes]:
    piece = byte * (256 * 1024)
    for _ in range(TOO_MUCH // len(piece)):
        yield piece


def post_too_much(
    port: int, context: ssl.SSLContext, path: str, headers: dict[str, str]
) -> int | None:
    """Send 300 MB; the status that came, or None if the connection was cut."""
    with httpx.Client(verify=context, trust_env=False, timeout=30) as client:
        try:
            url = f"https://127.0.0.1:{port}{path}"
            return client.post(url, content=pieces(), headers=headers).status_code
        except httpx.TransportError:
            return None


@pytest.mark.parametrize(
    ("who", "kind", "path"),
    [
        ("nobody", "announced", "push-object"),
        ("site", "chunked", "push-object"),
        pytest.param("site", "announced", "push-object", marks=pytest.mark.slow),
        pytest.param("site", "chunked", "push-messages", marks=pytest.mark.slow),
        pytest.param("site", "chunked", "no-such-path", marks=pytest.mark.slow),
        pytest.param("operator", "chunked", "push-object", marks=pytest.mark.slow),
    ],
)
def test_300_mb_from_a_caller_who_has_not_signed_do_not_grow_the_server(
    consortium: Any,
    attacker: Any,
    hub_process: tuple[int, psutil.Process],
    who: str,
    kind: str,
    path: str,
) -> None:
    port, process = hub_process
    if who == "nobody":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(consortium.folder / "server" / "ca.pem")
    elif who == "operator":
        context = tls.client_context(consortium.folder / "server", "operator")
    else:
        context = tls.client_context(consortium.site("alder"))
    headers = {"content-length": str(TOO_MUCH)} if kind == "announced" else {}
    attacker("birch", port).activate()  # all is warm
    statuses = []

    growth_mib = peak_growth_mib(
        process,
        lambda: statuses.append(post_too_much(port, context, FLEET + path, headers)),
    )

    assert growth_mib < GROWTH_MIB
    assert statuses[0] in {None, 403, 404, 413}
    assert attacker("birch", port).activate()


def test_a_head_without_end_is_cut_and_does_not_grow_the_server(
    consortium: Any, attacker: Any, hub_process: tuple[int, psutil.Process]
) -> None:
    import socket

    port, process = hub_process
    context = tls.client_context(consortium.site("alder"))
    attacker("birch", port).activate()
    num_sent = 0

    def attack() -> None:
        nonlocal num_sent
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
            contextlib.suppress(OSError),
        ):
            secure.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nx-long: ")
            for piece in pieces(b"x"):
                secure.sendall(piece)
                num_sent += len(piece)

    growth_mib = peak_growth_mib(process, attack)

    assert growth_mib < GROWTH_MIB
    assert num_sent < TOO_MUCH
