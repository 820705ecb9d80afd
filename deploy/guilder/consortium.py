"""A consortium of real processes on loopback: one server, several clients.

Used by the demo, the end-to-end tests and the benchmarks. Starts, kills and restarts
what a deployment runs; nothing is shared between the processes but sockets.
"""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from guilder_shared.errors import NetworkError
from guilder_shared.study import Study


class Consortium:
    """The processes in one folder, which `guilder_server.init.init_local` wrote."""

    def __init__(self, folder: Path, sites: Iterable[str]) -> None:
        self.folder = folder
        self.sites = list(sites)
        self.server_file = folder / "server" / "server.toml"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def site_file(self, site: str) -> Path:
        """The site's site.toml."""
        return self.folder / "sites" / site / "site.toml"

    def sign(self, site: str) -> None:
        """Let the site's officer sign what its site.toml says now."""
        from guilder_client import terms
        from guilder_client.settings import SiteFile
        from guilder_shared.identity import SigningKey
        from guilder_shared.officer import STANDING_DAYS, Officer, put

        settings = SiteFile.load(self.site_file(site))
        key = SigningKey.load(self.folder / "officers" / site / "officer.key")
        officer = Officer(key, site=site)
        for order in terms.sign(settings, officer, days=STANDING_DAYS):
            put(order, settings.site.state_dir / "orders")

    def log(self, who: str) -> Path:
        """The log of a process: "server" or a site's name."""
        return self.folder / "logs" / f"{who}.log"

    def command(self, who: str) -> list[str]:
        """What follows `guilder` to start a process."""
        if who == "server":
            return ["server", "start", "--server", str(self.server_file)]
        return ["client", "start", "--site", str(self.site_file(who))]

    def start(self, who: str) -> None:
        """Start the server ("server") or the client of a site."""
        self.log(who).parent.mkdir(parents=True, exist_ok=True)
        with self.log(who).open("ab") as log:
            self._processes[who] = subprocess.Popen(  # noqa: S603 - our own command, no shell
                [sys.executable, "-m", "guilder", *self.command(who)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the starter alone
            )

    def start_all(self) -> None:
        """Start the server and every client."""
        for who in ["server", *self.sites]:
            self.start(who)

    def kill(self, who: str) -> None:
        """Kill -9: no handler runs, nothing is flushed."""
        process = self._processes.pop(who)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def alive(self, who: str) -> bool:
        """Whether the process runs."""
        return who in self._processes and self._processes[who].poll() is None

    def pid(self, who: str) -> int:
        """The process id."""
        return self._processes[who].pid

    def stop(self, *names: str) -> None:
        """End the named processes, or all; those that do not listen are killed."""
        chosen = list(names) or list(self._processes)
        for who in chosen:
            if self.alive(who):
                self._processes[who].send_signal(signal.SIGTERM)
        for who in chosen:
            process = self._processes.pop(who, None)
            if process is None:
                continue
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def control(self, timeout_s: float = 30.0) -> Any:
        """A control client, as soon as the server answers.

        Raises:
            NetworkError: The server ended, or did not answer in time.
        """
        from guilder_server.console.control import ControlClient
        from guilder_server.settings import ServerFile

        deadline = time.monotonic() + timeout_s
        settings = ServerFile.load(self.server_file)
        while True:
            try:
                client = ControlClient.from_settings(settings)
                client.list()
                return client
            except NetworkError:
                if time.monotonic() > deadline or not self.alive("server"):
                    raise
                time.sleep(0.05)


def found(folder: Path, study: Study, **settings: Any) -> Consortium:
    """Write a consortium's files for the sites that `study` simulates.

    Each site gets its simulated rows as `rows.parquet` and the rounded number of rows,
    and of persons where they are the units, as its public sizes; the server gets the
    hold-out as `holdout.parquet`.

    Args:
        folder: Empty or missing.
        study: With a [simulation] part.
        settings: Fields of `LocalData`, the same for every site.
    """
    import pyarrow.parquet as pq

    from guilder_server.init import LocalData, init_local
    from guilder_simulations import partition, synthetic

    simulation = study.simulation
    assert simulation is not None, "the caller's study says what to simulate"
    table = synthetic.generate(simulation.source, simulation.seed)
    dealt, holdout, sizes = partition.split(
        table, simulation, study.evaluation.rows, identity=study.identity
    )
    persons = {}
    if study.identity is not None:
        persons = partition.public_persons(dealt, study.identity)
    (port,) = free_ports(1)
    data = {
        name: LocalData(
            dataset=study.data.dataset,
            kind="parquet",
            path="rows.parquet",
            public_size=sizes[name],
            public_persons=persons.get(name),
            recipe=study.study.recipe,
            **settings,
        )
        for name in dealt
    }
    init_local(
        folder,
        list(dealt),
        host="127.0.0.1",
        port=port,
        data=data,
        holdout="holdout.parquet",
    )
    pq.write_table(holdout, folder / "server" / "holdout.parquet")
    consortium = Consortium(folder, dealt)
    for name, rows in dealt.items():
        pq.write_table(rows, consortium.site_file(name).parent / "rows.parquet")
    return consortium


def free_ports(num: int) -> list[int]:
    """Ports of loopback that were free a moment ago."""
    sockets = [socket.socket() for _ in range(num)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
