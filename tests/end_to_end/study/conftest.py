"""A small consortium of real processes: one server, three hospitals, loopback."""

import functools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import h11
import pytest

from guilder.consortium import Consortium, found
from guilder_client.disclosure import Sent
from guilder_client.settings import SiteFile
from guilder_client.site import read_ledger
from guilder_shared import reports
from guilder_shared.privacy.ledger import Grant
from guilder_shared.study import Study
from guilder_simulations.studies import path_of

OVERRIDES = (
    "training.rounds=6",
    "simulation.sites=3",
    "aggregation.reply_quantum_s=0",
    "aggregation.round_deadline_s=60",
)


class Hospitals(Consortium):
    """The breast cancer study over three hospitals, ready to be started."""

    study: Study

    @classmethod
    def at(cls, folder: Path, **settings: Any) -> Self:
        """Three hospitals with files in `folder`."""
        study = Study.load(path_of("breast-cancer"), OVERRIDES)
        hospitals = cls(folder, found(folder, study, **settings).sites)
        hospitals.study = study
        return hospitals

    def study_with(self, *overrides: str) -> Study:
        return Study.load(path_of("breast-cancer"), (*OVERRIDES, *overrides))

    def arguments(self) -> list[str]:
        """What follows `guilder run submit` for this study and server."""
        changes = [part for each in OVERRIDES for part in ("--set", each)]
        server = ["--server", str(self.server_file)]
        return [str(path_of("breast-cancer")), *changes, *server]

    def outcome(self, run_id: str) -> dict[str, Any]:
        """The last event of a run, which is waited for."""
        with self.control() as control:
            events: list[dict[str, Any]] = list(control.watch(run_id))
        return events[-1]

    def run(self, study: Study | None = None) -> str:
        """Submit a study; returns the run's id."""
        with self.control() as control:
            run_id: str = control.submit((study or self.study).canonical(), [])
            return run_id

    def grants(self, site: str) -> list[Grant]:
        """What the site's ledger holds, read from its file."""
        with read_ledger(SiteFile.load(self.site_file(site))) as ledger:
            return ledger.grants()

    def verified(self, site: str) -> reports.Verification:
        """The site's report, written and verified."""
        with read_ledger(SiteFile.load(self.site_file(site))) as ledger:
            return reports.verify(reports.write(ledger, self.folder / "reports"))

    def num_rounds(self, run_id: str) -> int:
        """How many rounds of a run have a model on disk."""
        rounds = self._run(run_id) / "rounds"
        return len(list(rounds.iterdir())) if rounds.exists() else 0

    def model(self, run_id: str, round_no: int) -> bytes:
        """A round's model."""
        name = f"rounds/{round_no:03d}/model.safetensors"
        return (self._run(run_id) / name).read_bytes()

    def _run(self, run_id: str) -> Path:
        return self.folder / "server" / "state" / "runs" / run_id


class Forked(Hospitals):
    """Hospitals whose processes are forked from one that has loaded everything.

    They run what the commands run, and are killed like them; but a start costs a tenth
    of a second of a core and not four, so that very many are possible.
    """

    def __init__(self, folder: Path, sites: list[str]) -> None:
        super().__init__(folder, sites)
        self._pids: dict[str, int] = {}
        self._parent = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forking_parent.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._parent.stdout is not None
        return self._parent.stdout.readline().strip()

    def start(self, who: str) -> None:
        self.log(who).parent.mkdir(parents=True, exist_ok=True)
        asked = {"log": str(self.log(who)), "command": self.command(who)}
        print(json.dumps(asked), file=self._parent.stdin, flush=True)
        self._pids[who] = int(self._read())

    def kill(self, who: str) -> None:
        os.kill(self._pids[who], signal.SIGKILL)
        while self.alive(who):
            time.sleep(0.001)
        del self._pids[who]

    def alive(self, who: str) -> bool:
        try:
            os.kill(self._pids[who], 0)
        except (KeyError, ProcessLookupError):
            return False
        return True

    def pid(self, who: str) -> int:
        return self._pids[who]

    def stop(self, *names: str) -> None:
        chosen = [who for who in names or tuple(self._pids) if self.alive(who)]
        for who in chosen:
            os.kill(self._pids[who], signal.SIGTERM)
        ends = time.monotonic() + 10
        for who in chosen:
            while self.alive(who):
                if time.monotonic() > ends:
                    self.kill(who)
                time.sleep(0.01)
        if not names:
            self._parent.communicate()


class Tap:
    """Between one site and the server: two TLS connections, and a copy of requests.

    It holds the server's and the site's keys, as nobody on a real wire does.
    """

    def __init__(self, folder: Path, site: str, port: int) -> None:
        keys, own = folder / "server", folder / "sites" / site
        self._inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._inside.load_cert_chain(keys / "server.pem", keys / "server.key")
        self._outside = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._outside.load_verify_locations(own / "ca.pem")
        self._outside.load_cert_chain(own / "site.pem", own / "site.key")
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._copies: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            site = self._inside.wrap_socket(plain, server_side=True)
            server = self._outside.wrap_socket(
                socket.create_connection(self._server), server_hostname="127.0.0.1"
            )
        except OSError:
            plain.close()
            return
        copy = bytearray()
        self._copies.append(copy)
        back = threading.Thread(target=_pump, args=(server, site, None), daemon=True)
        back.start()
        _pump(site, server, copy)

    def sent(self) -> Iterator[Sent]:
        """Every whole request that the site made, connection by connection."""
        for copy in self._copies:
            yield from _requests(bytes(copy))

    def close(self) -> None:
        self._listener.close()


def _pump(source: ssl.SSLSocket, sink: ssl.SSLSocket, copy: bytearray | None) -> None:
    try:
        while data := source.recv(1 << 16):
            if copy is not None:
                copy += data
            sink.sendall(data)
    except (OSError, ValueError):
        pass
    for each in (source, sink):
        each.close()


def _requests(stream: bytes) -> Iterator[Sent]:
    """Read HTTP requests as their receiver does; a last one cut off is left out."""
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    reader.receive_data(stream)
    while True:
        head = reader.next_event()
        if not isinstance(head, h11.Request):
            return
        body = bytearray()
        while isinstance(event := reader.next_event(), h11.Data):
            body += event.data
        if not isinstance(event, h11.EndOfMessage):
            return
        names = tuple(name.decode() for name, _ in head.headers)
        yield Sent(head.target.decode(), names, bytes(body))
        reader.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        reader.send(h11.EndOfMessage())
        reader.start_next_cycle()


@pytest.fixture
def tapped() -> Iterator[Callable[[Consortium, str], Tap]]:
    """Puts a tap between a site and its server, before they are started."""
    taps: list[Tap] = []

    def put(consortium: Consortium, site: str) -> Tap:
        file = consortium.site_file(site)
        text = file.read_text()
        port = int(text.split("https://127.0.0.1:")[1].split('"')[0])
        tap = Tap(consortium.folder, site, port)
        file.write_text(text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{tap.port}"))
        taps.append(tap)
        return tap

    yield put
    for tap in taps:
        tap.close()


Founding = Callable[..., Hospitals]


@pytest.fixture(name="found")
def founding(tmp_path: Path) -> Iterator[Founding]:
    """Makes a consortium; whatever it started ends with the test."""
    made: list[Hospitals] = []

    def make(kind: type[Hospitals] = Hospitals, **changes: Any) -> Hospitals:
        settings = {"delta": 5e-4, "smallest_cohort": 3, **changes}
        folder = tmp_path / f"consortium-{len(made)}"
        made.append(kind.at(folder, **settings))
        return made[-1]

    yield make
    for hospitals in made:
        hospitals.stop()


@pytest.fixture
def found_forked(found: Founding) -> Founding:
    """Makes a consortium whose processes start in a tenth of a second."""
    return functools.partial(found, Forked)
