"""What idle sites cost the server: with the bell, and asking every two seconds.

One server process as `guilder server start` runs it; the sites are nodes in another
process, on mutual TLS, each with a line of its own. After a while without work the
server's processor time is read for some time, as the kernel counts it.

Goal: 50 idle sites cost less than 2 % of one core at the server.
"""

import argparse
import functools
import json
import os
import platform
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

from guilder.consortium import Consortium, free_ports

GOALS: dict[str, dict[str, float]] = {"fifty_sites_percent": {"at_most": 2.0}}
SETTLE_S = 25.0  # the server has loaded torch, the sites sleep


def measure(folder: Path, num_sites: int, seconds: float, *, bell: bool) -> float:
    """Per cent of a core that the server takes for sites that do nothing."""
    from guilder_server.init import init_local

    names = [f"site-{number}" for number in range(num_sites)]
    init_local(folder, names, host="127.0.0.1", port=free_ports(1)[0])
    with Consortium(folder, names) as consortium:
        consortium.start("server")
        consortium.control().close()
        server = psutil.Process(consortium.pid("server"))
        places = [str(folder / "sites" / name) for name in names]
        command = [sys.executable, __file__, "--be-sites", *places]
        sites = subprocess.Popen(
            [*command, *(["--bell"] if bell else [])],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert sites.stdout is not None
            while int(sites.stdout.readline()) < num_sites:  # all are there
                continue
            time.sleep(SETTLE_S)
            before, began_s = cpu_s(server), time.monotonic()
            time.sleep(seconds)
            return 100 * (cpu_s(server) - before) / (time.monotonic() - began_s)
        finally:
            sites.kill()
            sites.wait()


def cpu_s(process: psutil.Process) -> float:
    """Processor time of a process so far, its own and the kernel's for it."""
    times = process.cpu_times()
    return float(times.user + times.system)


def be_sites(places: Sequence[Path], *, bell: bool) -> None:
    """Be the sites in these folders, until killed; say how many are connected."""
    from flwr.clientapp import ClientApp

    from guilder_client.control import Bell
    from guilder_client.node import Node
    from guilder_client.settings import SiteFile

    stop, lines, online = threading.Event(), list[Bell](), set[str]()
    for place in places:
        settings = SiteFile.load(place / "site.toml")
        line = Bell(settings)
        options: dict[str, Any] = {"sleep": line.sleep} if bell else {}
        met = functools.partial(online.add, settings.site.name)
        node = Node(
            settings.site.server, place, ClientApp(), {}, on_online=met, **options
        )
        if bell:
            lines.append(line)
            threading.Thread(target=line.listen, args=(stop,), daemon=True).start()
        threading.Thread(target=node.run_forever, args=(stop,), daemon=True).start()
    while not stop.wait(1.0):  # how many are there, and would be rung
        is_up = [line.is_up for line in lines]
        print(min(len(online), sum(is_up) if bell else len(online)), flush=True)


def main() -> None:
    """Measure both ways in one run, and print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sites", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--be-sites", type=Path, nargs="+", default=None)
    parser.add_argument("--bell", action="store_true")
    asked = parser.parse_args()
    if asked.be_sites is not None:
        be_sites(asked.be_sites, bell=asked.bell)
        return
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for key, num_sites, bell in (
            ("no_sites_percent", 1, True),
            ("fifty_sites_percent", asked.sites, True),
            ("fifty_sites_asking_percent", asked.sites, False),
        ):
            place = Path(folder) / key
            figures[key] = round(measure(place, num_sites, asked.seconds, bell=bell), 2)
            print(f"{key}: {figures[key]}", file=sys.stderr)
    missed = [k for k, goal in GOALS.items() if figures[k] > goal["at_most"]]
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "flwr": version("flwr"),
    }
    told = {"benchmark": "idle_sites", "figures": figures, "goals": GOALS}
    print(json.dumps({**told, "missed": missed, "machine": machine}))


if __name__ == "__main__":
    main()
