"""What the ledger costs: a charge, an acceptance, a report, a verification.

A charge (`spend`) on disk, beside a bare SQLite insert with the same durability. An
acceptance (`reserve`) when 10,000 studies with 10,000 distinct events are charged
already, beside composing those events anew, which is what a ledger without filters has
to do at each acceptance. A report of three studies, and the full verification of a
report of 100,000 entries.
"""

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from guilder_shared import reports
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger

GOALS: dict[str, dict[str, float]] = {
    "spend_p50_ms": {"at_most": 10},
    "gate_10k_s": {"at_most": 1},
    "report_s": {"at_most": 5},
    "verify_100k_s": {"at_most": 30},
}
KEY = SigningKey.generate()
OFFICER = Officer(SigningKey.generate(), site="bank-a")


def event(number: int) -> dict[str, Any]:
    """A sampled Gaussian of its own for each study: nothing can be merged."""
    step = {"event": "gaussian", "noise_multiplier": 2.0 + number * 1e-4}
    sampled = {"event": "poisson-sampled", "sampling_probability": 0.01, "of": step}
    return {"event": "self-composed", "count": 10, "of": sampled}


def open_ledger(path: Path | None) -> Ledger:
    """A ledger whose officer permits every study, with a budget of epsilon 1,000."""
    orders = [
        OFFICER.budget("people", 1000.0, 1e-2, ["d"]),
        OFFICER.rule("any", recipes=["r"], largest_epsilon=100, largest_delta=0.1),
    ]
    officer = OFFICER.public_hex
    return Ledger.open(path, KEY, site="bank-a", officer=officer, orders=orders)


def reserve(
    ledger: Ledger, number: int, num_turns: int = 4, epsilon: float = 0.05
) -> str:
    """Accept one study."""
    return ledger.reserve(
        run_id=f"run-{number}",
        server="https://server",
        study_digest="d" * 64,
        study_name=f"study {number}",
        dataset="d",
        recipe="r",
        unit="record",
        cohort=2,
        study_epsilon=epsilon,
        study_delta=1e-8,
        turn_event=event(number),
        num_turns=num_turns,
        meta={},
    ).grant_id


def timed(act: Callable[[], object]) -> float:
    """Seconds that `act` takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def spending(folder: Path, num_turns: int) -> dict[str, float]:
    """Charge and seal on disk, and SQLite alone, turn about."""
    bare = sqlite3.connect(folder / "bare.db", isolation_level=None)
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute("PRAGMA synchronous=FULL")
    bare.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, body BLOB)")
    row = ("x" * 500,)
    spends, seals, inserts = [], [], []
    with open_ledger(folder / "ledger.db") as ledger:
        grant = reserve(ledger, 0, num_turns)
        for turn_no in range(1, num_turns + 1):
            spends.append(timed(partial(ledger.spend, grant, turn_no, "h" * 64)))
            seals.append(timed(partial(ledger.seal, grant, turn_no, "s" * 64)))
            inserts.append(
                timed(lambda: bare.execute("INSERT INTO entries(body) VALUES(?)", row))
            )
    bare.close()
    return {
        "spend_p50_ms": 1000 * statistics.median(spends),
        "spend_p99_ms": 1000 * statistics.quantiles(spends, n=100)[98],
        "seal_p50_ms": 1000 * statistics.median(seals),
        "sqlite_insert_p50_ms": 1000 * statistics.median(inserts),
    }


def gate(num_events: int) -> dict[str, float]:
    """Accept a new study before and after `num_events` distinct ones."""
    figures = {}
    with open_ledger(None) as ledger:
        reserve(ledger, -1)
        few = [timed(partial(reserve, ledger, n)) for n in range(10)]
        begun = time.perf_counter()
        for number in range(10, num_events):
            reserve(ledger, number)
        filled_s = time.perf_counter() - begun
        many = [
            timed(partial(reserve, ledger, n))
            for n in range(num_events, num_events + 10)
        ]
        figures["gate_empty_s"] = statistics.median(few)
        figures["gate_10k_s"] = max(many)
        figures["gate_10k_median_s"] = statistics.median(many)
        figures["accept_10k_s"] = filled_s
    return figures


def composing_anew(num_events: int) -> float:
    """Epsilon of distinct events from nothing: what each acceptance would cost."""
    events = [(event(1_000_000 + number), 4) for number in range(num_events)]
    return timed(lambda: accounting.epsilon(events, 1e-6, grid="coarse"))


def reporting(folder: Path) -> float:
    """Build and write the report of a site with three studies of 30 turns."""
    with open_ledger(None) as ledger:
        for number in range(3):
            grant = reserve(ledger, 2_000_000 + number, 32, 1.0)
            for turn_no in range(1, 31):
                ledger.spend(grant, turn_no, "h" * 64)
                ledger.seal(grant, turn_no, "s" * 64)
        return timed(lambda: reports.write(ledger, folder / "reports"))


def verifying(folder: Path, num_entries: int) -> dict[str, float]:
    """Write a ledger of so many entries, in memory, and verify its report."""
    with open_ledger(None) as ledger:
        num_turns = num_entries // 2
        grant = reserve(ledger, 3_000_000, num_turns, 1.0)
        for turn_no in range(1, num_turns + 1):
            ledger.spend(grant, turn_no, "h" * 64)
            ledger.seal(grant, turn_no, "s" * 64)
        path = reports.write(ledger, folder / "long")
    return {
        "verify_100k_s": timed(lambda: reports.verify(path)),
        "report_of_100k_mb": path.stat().st_size / 1e6,
    }


def measure(folder: Path) -> dict[str, float]:
    """All figures, one after the other."""
    figures: dict[str, float] = {}
    for name, part in (
        ("spending", lambda: spending(folder, 500)),
        ("gate", lambda: gate(10_000)),
        ("composing", lambda: {"compose_300_events_anew_s": composing_anew(300)}),
        ("report", lambda: {"report_s": reporting(folder)}),
        ("verify", lambda: verifying(folder, 100_000)),
    ):
        print(name, file=sys.stderr, flush=True)
        figures |= part()
    return {key: float(f"{figure:.4g}") for key, figure in figures.items()}


def machine() -> dict[str, Any]:
    """Where it was measured; `load` tells whether others were at work."""
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "sqlite": sqlite3.sqlite_version,
        "dp-accounting": version("dp-accounting"),
    }


def main() -> None:
    """Measure and print; the last line on stdout is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="nothing else on stdout")
    options = parser.parse_args()
    where = machine()
    folder = Path(tempfile.mkdtemp(prefix="ledger-", dir=Path.cwd()))
    try:
        figures = measure(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not options.json:
        for key, figure in figures.items():
            print(f"{key:32} {figure}")
    result = {
        "benchmark": "ledger",
        "figures": figures,
        "goals": GOALS,
        "missed": [k for k, g in GOALS.items() if figures[k] > g["at_most"]],
        "machine": where,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
