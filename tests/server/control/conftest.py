"""A consortium's operator channel over real TLS sockets."""

import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from guilder_server.console.control import ControlClient
from guilder_server.control import ControlServer
from guilder_server.relays import Relays
from guilder_server.settings import ServerFile
from guilder_shared import certificates
from guilder_shared.errors import (
    RunFailed,
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
        self.awaited: dict[str, str] = {}
        self.relays = Relays()
        self.server = self.start(0)

    def start(self, port: int) -> ControlServer:
        chosen = self.settings.server.model_copy(update={"control_port": port})
        self.settings = self.settings.model_copy(update={"server": chosen})
        server = ControlServer(
            self.settings,
            self.runs,
            awaited=lambda _run_id: dict(self.awaited),
            met=self.relays.known,
        )
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
