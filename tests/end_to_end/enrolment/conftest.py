"""A server that enrols, over real TLS sockets, with its hub and its control channel."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from guilder.consortium import free_ports
from guilder_client.join import join
from guilder_server.console.control import ControlClient
from guilder_server.control import ControlServer
from guilder_server.hub import Hub
from guilder_server.init import init_server
from guilder_server.register import Register
from guilder_server.resident import admit_or_expel
from guilder_server.settings import ServerFile, load_console
from guilder_server.sightings import Sightings
from guilder_shared import tls
from guilder_shared.invitation import Token

FILLED = """
[data.d]
kind = "csv"
path = "data.csv"
public_size = 100
[budget.people]
epsilon = 6.0
delta = 1e-5
datasets = ["d"]
"""


class Runs:
    """A handler with one run, which goes on until nobody listens."""

    silent_s = 30.0  # then it ends

    def submit(self, study: bytes, only: Sequence[str]) -> str:
        return "run-1"

    def watch(
        self, run_id: str, *, gone: threading.Event | None = None
    ) -> Iterator[dict[str, Any]]:
        assert gone is not None
        yield {"kind": "started"}
        gone.wait(self.silent_s)

    def list(self) -> list[dict[str, Any]]:
        return [{"run_id": "run-1"}]

    def resume(self, run_id: str) -> None: ...

    def stop_run(self, run_id: str) -> None: ...


class Office:
    """One consortium's server, and folders of those who join it."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.folder = folder
        init_server(folder, host=host, port=free_ports(1)[0])
        self.settings = ServerFile.load(folder / "server" / "server.toml")
        self.start()

    def start(self) -> None:
        self.runs = Runs()
        settings = self.settings
        assert settings.enrolment is not None
        self.register = Register.open(
            settings.server.storage, settings.enrolment, settings.keys.authority
        )
        self.sightings = Sightings.open(settings.server.storage)
        self.hub = Hub(
            ("127.0.0.1", settings.server.port),
            tls.server_context(settings.keys.key.parent),
            {},
            heard=self.sightings.note,
        )
        self.register.listen(lambda _, name, who: admit_or_expel(self.hub, name, who))
        self.control = ControlServer(
            settings,
            self.runs,
            self.register,
            self.hub.attended,
            online=self.hub.online,
            seen=self.sightings.all,
        )
        self.control.start()
        self.hub.start(self.control.behind_the_public_port())

    def stop(self) -> None:
        self.control.stop()
        self.hub.stop()
        self.register.close()

    def admin(self) -> ControlClient:
        return ControlClient.from_settings(self.settings)

    def invite(self, name: str = "bank-a", role: str = "site", **terms: Any) -> Token:
        said = {"hours": 1.0, "needs_approval": False} | terms
        with self.admin() as admin:
            return Token.parse(admin.invite(name, role=role, **said))

    def join(self, token: Token, wait_s: float = 20.0) -> Path:
        """The folder of who joined."""
        self.lines: list[str] = []
        folder = self.folder / "joined" / token.name
        join(token, folder, wait_s=wait_s, tell=self.lines.append)
        return folder

    def join_filled(self, token: Token) -> Path:
        """The folder of a site that joined and filled in its site.toml."""
        folder = self.join(token)
        with (folder / "site.toml").open("a") as file:
            file.write(FILLED)
        return folder

    def person(self, name: str, role: str) -> ControlClient:
        folder = self.join(self.invite(name, role))
        return ControlClient.from_settings(load_console(folder / "operator.toml"))

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.register.entries()]


@pytest.fixture
def far_office(tmp_path: Path) -> Iterator[Office]:
    """A server by a name that only a proxy knows."""
    office = Office(tmp_path / "far", "fl.example.test")
    yield office
    office.stop()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path / "consortium")
    yield office
    office.stop()
