"""A server with many sites: fifty take part in a study, a hundred do nothing.

One server process as `guilder server start` runs it. Each of the fifty is the whole
client (`run_client`: its own certificate, ledger, rows and private turns), but they
share two processes, twenty-five threads each: fifty processes with torch of their own
would need 15 GB of memory and more than two cores, and are on fifty machines in life.
The hundred are nodes with a line to be rung by, as in `idle_sites.py`, in one process.
All of it on mutual TLS, on one machine, so the rounds are slower than they would be:
the sites' work is on the server's cores.

Goals: all idle sites are still connected when the study has ended; while all sleep they
cost the server at most 4 % of a core; a round of fifty sites ends within 10 s.
"""

import argparse
import itertools
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from idle_sites import cpu_s

from guilder.consortium import Consortium, found
from guilder_shared.study import Study
from guilder_simulations.studies import path_of

NUM_PROCESSES = 2  # of the sites that take part
SETTLE_S = 25.0
GOALS: dict[str, dict[str, float]] = {
    "idle_percent": {"at_most": 4.0},
    "round_s": {"at_most": 10.0},
}


def study_of(num_active: int, num_idle: int, rounds: int) -> Study:
    """The breast cancer study over very small sites; all active ones must answer."""
    settings = (
        f"training.rounds={rounds}",
        f"simulation.sites={num_active + num_idle}",
        f"aggregation.min_sites={num_active}",
        "aggregation.reply_quantum_s=0",
        "aggregation.round_deadline_s=600",
    )
    return Study.load(path_of("breast-cancer"), settings)


class Sites:
    """Processes of sites, which end with the `with` block."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Sites":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.kill()
            process.wait()

    def start(self, program: str, *words: object) -> subprocess.Popen[str]:
        """Start a program beside this file."""
        command = [sys.executable, str(Path(__file__).with_name(program))]
        process = subprocess.Popen(
            [*command, *map(str, words)], stdout=subprocess.PIPE, text=True
        )
        self._started.append(process)
        return process


def counted(process: subprocess.Popen[str]) -> int:
    """The next number that a process of idle sites prints: how many are connected."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def last_count(process: subprocess.Popen[str]) -> int:
    """How many idle sites are connected now; what was printed before is read off."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    while process.stdout.readline():
        continue
    os.set_blocking(process.stdout.fileno(), True)
    return counted(process)


class Memory(threading.Thread):
    """The most memory that a process has while this runs, looked at ten times a second.

    Attributes:
        peak_mb: Resident, of 10^6 bytes.
    """

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.ended = threading.Event()
        self.peak_mb = 0.0

    def run(self) -> None:
        """Look until told to end."""
        while not self.ended.wait(0.1):
            self.peak_mb = max(self.peak_mb, self._process.memory_info().rss / 1e6)


def measure(
    folder: Path, num_active: int, num_idle: int, rounds: int, seconds: float
) -> dict[str, float]:
    """All figures of one study."""
    study = study_of(num_active, num_idle, rounds)
    with (
        found(folder, study, delta=5e-4, smallest_cohort=2) as consortium,
        Sites() as sites,
    ):
        active, idle = consortium.sites[:num_active], consortium.sites[num_active:]
        consortium.start("server")
        consortium.control().close()
        server = psutil.Process(consortium.pid("server"))
        places = [consortium.site_file(name).parent for name in idle]
        sleeping = sites.start("idle_sites.py", "--bell", "--be-sites", *places)
        while counted(sleeping) < num_idle:
            continue
        print(f"{num_idle} idle sites are connected", file=sys.stderr, flush=True)
        time.sleep(SETTLE_S)
        before, began_s = cpu_s(server), time.monotonic()
        time.sleep(seconds)
        percent = 100 * (cpu_s(server) - before) / (time.monotonic() - began_s)
        memory = Memory(server)
        memory.start()
        idle_mb = server.memory_info().rss / 1e6
        for first in range(NUM_PROCESSES):
            files = map(consortium.site_file, active[first::NUM_PROCESSES])
            sites.start("many_sites.py", "--be-clients", *files)
        events = followed(consortium, study, active, server)
        memory.ended.set()
        connected = last_count(sleeping)
    ends = [event for event in events if event["kind"] == "round"]
    later = [b["t"] - a["t"] for a, b in itertools.pairwise(ends)]
    used = ends[-1]["cpu_s"] - ends[0]["cpu_s"]
    return {
        "rounds": len(ends),
        "idle_connected": connected,
        "idle_percent": round(percent, 2),
        "round_s": round(statistics.median(later), 2),
        "slowest_round_s": round(max(later), 2),
        "server_cpu_s_a_round": round(used / len(later), 3),
        "server_idle_mb": round(idle_mb),
        "server_peak_mb": round(memory.peak_mb),
    }


def followed(
    consortium: Consortium, study: Study, only: Sequence[str], server: psutil.Process
) -> list[dict[str, Any]]:
    """The events of a run of `only`, each with the server's processor time so far."""
    events = []
    with consortium.control() as control:
        for event in control.watch(control.submit(study.canonical(), list(only))):
            events.append({**event, "cpu_s": cpu_s(server)})
            if event["kind"] == "round":
                print(f"round {event['round']}", file=sys.stderr, flush=True)
    if events[-1]["kind"] != "run-finished":
        raise SystemExit(f"the run ended as {events[-1]}")
    return events


def be_clients(files: Sequence[Path]) -> None:
    """Be the whole clients of some sites, until killed."""
    from guilder_client.resident import run_client
    from guilder_client.settings import SiteFile

    logging.basicConfig(level=logging.WARNING)
    stop = threading.Event()
    for file in files:
        settings = SiteFile.load(file)
        threading.Thread(target=run_client, args=(settings, stop), daemon=True).start()
    stop.wait()


def main() -> None:
    """Measure once, and print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--active", type=int, default=50)
    parser.add_argument("--idle", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--be-clients", type=Path, nargs="+", default=None)
    asked = parser.parse_args()
    if asked.be_clients is not None:
        be_clients(asked.be_clients)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(
            Path(folder) / "sites",
            asked.active,
            asked.idle,
            asked.rounds,
            asked.seconds,
        )
    goals = {
        **GOALS,
        "idle_connected": {"at_least": float(asked.idle)},
        "rounds": {"at_least": float(asked.rounds)},
    }
    missed = [
        key
        for key, goal in goals.items()
        if figures[key] > goal.get("at_most", float("inf"))
        or figures[key] < goal.get("at_least", float("-inf"))
    ]
    machine = {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("grpcio", "flwr", "torch")},
    }
    told = {"benchmark": "many_sites", "figures": figures, "goals": goals}
    print(json.dumps({**told, "missed": missed, "machine": machine}))


if __name__ == "__main__":
    main()
