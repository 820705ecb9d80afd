"""How long a round takes, beside what it computes: ours and stock Flower in one run.

The breast cancer study at full batch: one private step on a few hundred rows a turn,
which takes 3 ms. All the rest of a round is transport, ledger, fsyncs and TLS.

Ours: one server process and a client process a site, mutual TLS, reply quantum 0.
Stock: the same two apps and the same study on a SuperLink and SuperNodes as they come,
but without TLS and without node authentication, which is in their favour.

Figures are from the times in each run's own events: the median of the rounds after
the first, and the first by itself, which for ours includes the offer.
"""

import argparse
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w

from guilder.consortium import Consortium, found
from guilder.stock_flower import StockFlower
from guilder_shared.study import Study
from guilder_simulations.studies import path_of

sys.path.insert(0, str(Path(__file__).parent / "workloads"))
import outcome  # type: ignore[import-not-found]

GOALS: dict[str, dict[str, float]] = {
    "two_sites_s": {"at_most": 0.15},
    "eight_sites_s": {"at_most": 0.5},
    "times_stock_flower": {"at_least": 50},
}
SETTLE_S = 15  # after the clients' start: they load torch in the background


def study_of(sites: int, rounds: int) -> Study:
    """The breast cancer study over `sites` hospitals; all take part in every round."""
    settings = (
        f"training.rounds={rounds}",
        f"simulation.sites={sites}",
        f"aggregation.min_sites={sites}",
        "aggregation.reply_quantum_s=0",
        "aggregation.round_deadline_s=300",
    )
    return Study.load(path_of("breast-cancer"), settings)


def prepare(folder: Path, study: Study) -> Consortium:
    """Keys, rows, and a ledger for each site, on disk."""
    return found(folder, study, delta=1e-3 / 2, smallest_cohort=2)


def ours(folder: Path, study: Study) -> list[dict[str, Any]]:
    """Events of a run on our server and clients."""
    with prepare(folder, study) as consortium:
        consortium.start_all()
        with consortium.control() as control:
            time.sleep(SETTLE_S)
            run_id = control.submit(study.canonical(), [])
            return list(control.watch(run_id))


def stock(folder: Path, study: Study, limit_s: float = 1200) -> list[dict[str, Any]]:
    """Events of a run of the same apps on stock Flower."""
    consortium = prepare(folder, study)
    run_folder = folder / "run"
    run_folder.mkdir()
    parts = study.model_dump(mode="json", by_alias=True, exclude_none=True)
    (run_folder / "study.toml").write_text(tomli_w.dumps(parts), "utf-8")
    files = [consortium.site_file(site) for site in consortium.sites]
    with StockFlower(folder / "flower", files) as flower:
        flower.run(run_folder, consortium.server_file)
        return list(follow(run_folder / "events.jsonl", limit_s))


def follow(file: Path, limit_s: float) -> Iterator[dict[str, Any]]:
    """A run's events as its folder shows them, up to the last."""
    seen = 0
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        for event in map(json.loads, lines[seen:]):
            seen += 1
            yield event
            if event["kind"] in ("run-finished", "run-failed", "run-stopped"):
                return
        time.sleep(0.5)
    raise SystemExit(f"stock Flower did not finish in {limit_s:.0f} s; see {file}")


def times(events: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Seconds of the first round, and of each later one."""
    if events[-1]["kind"] != "run-finished":
        raise SystemExit(f"the run ended as {events[-1]}")
    begun = next(e["t"] for e in events if e["kind"] == "run-running")
    ends = [event["t"] for event in events if event["kind"] == "round"]
    return ends[0] - begun, [b - a for a, b in itertools.pairwise(ends)]


def measure(folder: Path, rounds: int, stock_rounds: int) -> dict[str, float]:
    """All figures, one run after the other."""
    figures: dict[str, float] = {}
    plan = [
        ("two_sites", ours, 2, rounds),
        ("eight_sites", ours, 8, rounds),
        ("stock_two_sites", stock, 2, stock_rounds),
    ]
    for name, run, sites, num_rounds in plan:
        print(f"{name}: {num_rounds} rounds", file=sys.stderr, flush=True)
        events = run(folder / name, study_of(sites, num_rounds))
        first, later = times(events)
        figures[f"{name}_s"] = round(statistics.median(later), 4)
        figures[f"{name}_slowest_s"] = round(max(later), 4)
        figures[f"first_round_{name}_s"] = round(first, 3)
        print(f"  median {figures[f'{name}_s']} s", file=sys.stderr, flush=True)
    ratio = figures["stock_two_sites_s"] / figures["two_sites_s"]
    figures["times_stock_flower"] = round(ratio, 1)
    return figures


def main() -> None:
    """Measure and print; the last line on stdout is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="nothing else on stdout")
    parser.add_argument(
        "--rounds", type=int, default=31, help="of ours; one is dropped"
    )
    parser.add_argument("--stock-rounds", type=int, default=6, help="one is dropped")
    parser.add_argument("--keep", type=Path, help="keep all files in this folder")
    options = parser.parse_args()
    where = outcome.machine("flwr", "torch", "opacus")
    folder = options.keep or Path(tempfile.mkdtemp(prefix="round-latency-"))
    try:
        figures = measure(folder, options.rounds, options.stock_rounds)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    outcome.tell("round_latency", figures, GOALS, where, as_json=options.json)


if __name__ == "__main__":
    main()
