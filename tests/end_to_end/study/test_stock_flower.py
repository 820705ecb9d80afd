"""The same apps and the same study on a stock SuperLink and stock SuperNodes."""

import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w

from guilder.stock_flower import StockFlower

Founding = Any  # the fixture `found`; see conftest.py
TWO_ROUNDS = ("training.rounds=2", "aggregation.round_deadline_s=200")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_private_study_runs_on_stock_flower_with_real_ledgers(
    found: Founding,
) -> None:
    hospitals = found()
    study = hospitals.study_with(*TWO_ROUNDS)
    run_folder = begin(hospitals.folder / "run", study)
    sites = [hospitals.site_file(name) for name in hospitals.sites]

    with StockFlower(hospitals.folder / "flower", sites) as flower:
        flower.run(run_folder, hospitals.server_file)
        last = outcome(run_folder, limit_s=500)

    assert last["kind"] == "run-finished", last
    measured = [json.loads(line) for line in lines(run_folder / "metrics.jsonl")]
    assert {each["round"] for each in measured if each["name"] == "auc"} == {1, 2}
    for site in hospitals.sites:
        (charged,) = hospitals.verified(site).studies
        assert charged.num_turns_spent == 2
        assert charged.epsilon == pytest.approx(3.0)
    assert list((hospitals.folder / "sites").glob("*/state/turns/*")) == []
    assert orphans_of(hospitals.folder) == []


def begin(folder: Path, study: Any) -> Path:
    """A run folder as a person makes it: study.toml and nothing else."""
    folder.mkdir()
    parts = study.model_dump(mode="json", by_alias=True, exclude_none=True)
    (folder / "study.toml").write_text(tomli_w.dumps(parts))
    return folder


def outcome(run_folder: Path, limit_s: float) -> dict[str, Any]:
    """The run's last event, which is waited for."""
    events: list[dict[str, Any]] = [{"kind": "nothing happened"}]
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        events = [json.loads(line) for line in lines(run_folder / "events.jsonl")]
        if events and events[-1]["kind"] in ("run-finished", "run-failed"):
            break
        time.sleep(0.5)
    return events[-1]


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def orphans_of(folder: Path) -> list[list[str]]:
    """Processes of Flower that outlived it: each has its home in our folder."""
    return [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline", "environ"])
        if str(folder) in (process.info["environ"] or {}).get("FLWR_HOME", "")
    ]
