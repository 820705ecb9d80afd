"""What a large model costs the server: memory in sizes of the model, and time.

One server process, sites in processes of their own, mutual TLS on loopback. Sites do
not train: they send numbers of the model's shapes, so that what is measured is the
server and the wire. Memory is the server's peak above what it had when all sites were
online.

`server_peak_models`: with the sites asked for. `sixteen_to_four_sites_memory`: the peak
with four times as many sites over that with so many, at a smaller model.
`times_raw_copy`: a round's seconds over those of one plain TLS connection that carries
the same bytes, model out and update in for each site one after the other. It is the
median of the rounds after the first, in which the sites draw what they send.

A model of 1 GB: `--mb 1000 --sites 2 --rounds 2 --large-only`.
"""

import argparse
import json
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import tomli_w

from guilder_shared.certificates import init_local_sites
from guilder_shared.tls import client_context, server_context

sys.path.insert(0, str(Path(__file__).parent / "workloads"))
import outcome  # type: ignore[import-not-found]

ROLES = Path(__file__).parent / "workloads" / "large_model_roles.py"
GOALS: dict[str, dict[str, float]] = {
    "server_peak_models": {"at_most": 5},
    "sixteen_to_four_sites_memory": {"at_most": 1.2},
    "times_raw_copy": {"at_most": 2},
}
MB = 1_000_000
PIECE = 1 << 20


def study_of(num_sites: int, model_mb: float) -> dict[str, Any]:
    """A study whose model has about so many megabytes."""
    width = max(8, int((model_mb * MB / 4) ** 0.5) - 8)
    return {
        "schema": 1,
        "study": {
            "name": "large-model",
            "recipe": "tabular-classification",
            "purpose": "Measure what a large model costs",
        },
        "data": {
            "kind": "table",
            "dataset": "none",
            "target": "y",
            "columns": {"x": {"kind": "number", "low": 0.0, "high": 1.0}},
        },
        "model": {"name": "mlp", "hidden": [width, width]},
        "training": {
            "rounds": 1,
            "local_steps": 1,
            "sample_rate": 1.0,
            "learning_rate": 0.1,
        },
        "privacy": {
            "unit": "record",
            "mechanism": "site-noise",
            "epsilon": 3.0,
            "delta": 1e-6,
            "clip_norm": 1.0,
        },
        "aggregation": {"min_sites": num_sites, "round_deadline_s": 3600.0},
        "evaluation": {"on": "none"},
    }


def run(folder: Path, num_sites: int, model_mb: float, rounds: int) -> dict[str, Any]:
    """What the server told after a run."""
    names = [f"site-{n:02d}" for n in range(num_sites)]
    init_local_sites(folder, names, ["127.0.0.1"])
    study = folder / "study.toml"
    study.write_text(tomli_w.dumps(study_of(num_sites, model_mb)), "utf-8")
    server = _start("server", str(folder / "server"), str(study), str(rounds))
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    sites = [_start("site", str(folder / "sites" / n), n, port) for n in names]
    try:
        told: dict[str, Any] = json.loads(server.stdout.readline())
        told["site_peak_bytes"] = max(map(_grown_bytes, sites))
        server.wait(60)
    finally:
        for process in (server, *sites):
            process.kill()
            process.wait()
    return told


def _grown_bytes(site: subprocess.Popen[str]) -> int:
    """A site's largest memory beyond what it had when it was online."""
    assert site.stdout is not None
    idle_bytes = int(site.stdout.readline())
    status = Path(f"/proc/{site.pid}/status").read_text()
    peak_kib = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(peak_kib.split()[1]) - idle_bytes


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROLES), *arguments], stdout=subprocess.PIPE, text=True
    )


def raw_copy_s(folder: Path, num_bytes: int, num_sites: int) -> float:
    """Seconds to carry so many bytes out and in, once for each site, over TLS."""
    names = ["alone"]
    init_local_sites(folder, names, ["127.0.0.1"])
    listener = socket.create_server(("127.0.0.1", 0))
    server = server_context(folder / "server")
    piece = os.urandom(PIECE)

    def serve() -> None:
        plain, _ = listener.accept()
        with server.wrap_socket(plain, server_side=True) as secure:
            for _ in range(num_sites):
                _send(secure, piece, num_bytes)
                _receive(secure, num_bytes)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    context = client_context(folder / "sites" / "alone")
    with (
        socket.create_connection(listener.getsockname()) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        begin = time.monotonic()
        for _ in range(num_sites):
            _receive(secure, num_bytes)
            _send(secure, piece, num_bytes)
        thread.join()
    return time.monotonic() - begin


def _send(secure: ssl.SSLSocket, piece: bytes, num_bytes: int) -> None:
    for start in range(0, num_bytes, PIECE):
        secure.sendall(piece[: min(PIECE, num_bytes - start)])


def _receive(secure: ssl.SSLSocket, num_bytes: int) -> None:
    left = num_bytes
    while left:
        left -= len(secure.recv(min(PIECE, left)))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """All figures, one after the other."""
    sites, figures = options.sites, {}
    told = run(folder / "large", sites, options.mb, options.rounds)
    size = told["model_bytes"]
    raw_s = raw_copy_s(folder / "raw", size, sites)
    round_s = statistics.median(told["rounds_s"][1:])
    figures["model_mb"] = round(size / MB, 1)
    figures["sites"] = sites
    figures["server_peak_models"] = _peak(told)
    figures["server_idle_mb"] = round(told["idle_bytes"] / MB, 1)
    figures["round_s"] = round(round_s, 2)
    figures["raw_copy_s"] = round(raw_s, 2)
    figures["times_raw_copy"] = round(round_s / raw_s, 2)
    figures["site_peak_models"] = round(told["site_peak_bytes"] / size, 2)
    print(f"{size / MB:.0f} MB x {sites}: {figures}", file=sys.stderr, flush=True)
    if options.large_only:
        return figures
    few = run(folder / "few", options.few, options.small_mb, options.rounds)
    many = run(folder / "many", 4 * options.few, options.small_mb, options.rounds)
    figures["small_model_mb"] = round(few["model_bytes"] / MB, 1)
    figures["four_sites_peak_models"] = _peak(few)
    figures["sixteen_sites_peak_models"] = _peak(many)
    ratio = _peak(many) / _peak(few)
    figures["sixteen_to_four_sites_memory"] = round(ratio, 3)
    return figures


def _peak(told: dict[str, Any]) -> float:
    above = told["peak_bytes"] - told["idle_bytes"]
    return round(above / told["model_bytes"], 2)


def main() -> None:
    """Measure and print; the last line on stdout is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="nothing else on stdout")
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--mb", type=float, default=100, help="of the model")
    parser.add_argument("--rounds", type=int, default=4, help="one is dropped")
    parser.add_argument("--few", type=int, default=4, help="sites, and four times that")
    parser.add_argument("--small-mb", type=float, default=25, help="of their model")
    parser.add_argument("--large-only", action="store_true", help="the first three")
    options = parser.parse_args()
    where = outcome.machine("flwr", "numpy")
    folder = Path(tempfile.mkdtemp(prefix="large-model-"))
    try:
        figures = measure(folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    outcome.tell("large_model", figures, GOALS, where, as_json=options.json)


if __name__ == "__main__":
    main()
