"""A whole study in one process: the same bytes, and nothing lost to a crash."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from guilder_shared import reports
from guilder_shared.errors import BudgetSpent, PlanError, StudyError
from guilder_shared.privacy import noise
from guilder_shared.study import Study
from guilder_shared.training.selftest import verdict
from guilder_simulations.engine import Run, simulate
from guilder_simulations.studies import path_of

SHORT = ("training.rounds=4",)


def study_with(*overrides: str) -> Study:
    return Study.load(path_of("breast-cancer"), (*SHORT, *overrides))


def model_bytes(folder: Path, round_no: int = 4) -> bytes:
    return (folder / "rounds" / f"{round_no:03d}" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(study_with(), tmp_path_factory.mktemp("run"))


def test_the_same_study_and_seed_give_the_same_model_bytes(
    finished: Run, tmp_path: Path
) -> None:
    simulate(study_with(), tmp_path)

    assert model_bytes(tmp_path) == model_bytes(finished.run_dir)


def test_another_seed_gives_another_model(finished: Run, tmp_path: Path) -> None:
    simulate(study_with("simulation.seed=8"), tmp_path)

    assert model_bytes(tmp_path) != model_bytes(finished.run_dir)


def test_a_simulation_on_code_that_halves_its_noise_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_grids = noise.in_grids
    monkeypatch.setattr(noise, "in_grids", lambda std, grid: in_grids(std, grid) / 2)
    monkeypatch.setattr(verdict, "_passed", {})

    with pytest.raises(PlanError) as caught:
        simulate(study_with(), tmp_path)

    assert caught.value.error_id == "GLD-P070"


def test_a_run_folder_holds_what_the_contract_names(finished: Run) -> None:
    folder = finished.run_dir
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]

    assert {"study.toml", "run.json", "events.jsonl", "summary.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert {m["round"] for m in metrics if m["name"] == "auc"} == {1, 2, 3, 4}
    assert set(metrics[0]) == {"round", "site", "name", "value", "t"}
    assert json.loads((folder / "summary.json").read_text())["rounds"] == 4


def test_every_site_gets_a_report_that_verifies_and_says_it_is_simulated(
    finished: Run,
) -> None:
    for site in finished.epsilon:
        path = finished.run_dir / "reports" / f"{site}.report.json"
        (study,) = reports.verify(path).studies

        assert study.simulated
        assert study.num_turns_spent == 4
        assert study.epsilon == pytest.approx(3.0)


def test_the_study_in_the_run_folder_is_the_one_that_ran(finished: Run) -> None:
    kept = Study.load(finished.run_dir / "study.toml")

    assert kept == study_with()


def test_interrupted_at_any_turn_it_goes_on_to_the_same_bytes(
    finished: Run, tmp_path: Path
) -> None:
    def interrupt(event: dict[str, object]) -> None:
        if event["kind"] == "round" and event["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(study_with(), tmp_path, watch=interrupt)
    simulate(study_with(), tmp_path)

    assert model_bytes(tmp_path) == model_bytes(finished.run_dir)


def test_killed_with_9_it_goes_on_to_the_same_bytes_and_charges_each_turn_once(
    finished: Run, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "guilder",
        "simulate",
        str(path_of("breast-cancer")),
    ]
    command += ["--set", SHORT[0], "--out", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "rounds" / "002").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    simulate(study_with(), tmp_path)

    assert model_bytes(tmp_path) == model_bytes(finished.run_dir)
    (study,) = reports.verify(tmp_path / "reports" / "site-1.report.json").studies
    assert study.num_turns_spent == 4
    events = [json.loads(x) for x in (tmp_path / "events.jsonl").open()]
    assert [e["round"] for e in events if e["kind"] == "round"] == [1, 2, 3, 4]


def test_a_folder_with_another_studys_run_is_refused_and_kept(finished: Run) -> None:
    before = model_bytes(finished.run_dir)

    with pytest.raises(StudyError, match="another study or seed"):
        simulate(study_with("simulation.seed=9"), finished.run_dir)

    assert model_bytes(finished.run_dir) == before


def test_a_study_without_its_simulation_part_says_what_to_add(tmp_path: Path) -> None:
    study = study_with().model_copy(update={"simulation": None})

    with pytest.raises(StudyError, match=r"no \[simulation\] part"):
        simulate(study, tmp_path)


@pytest.mark.parametrize(
    ("override", "error_id"),
    [
        ("privacy.mechanism=joint-noise", "GLD-P011"),
    ],
)
def test_what_is_not_built_yet_is_refused_before_anything_is_written(
    tmp_path: Path, override: str, error_id: str
) -> None:
    with pytest.raises((PlanError, StudyError)) as caught:
        simulate(study_with(override), tmp_path / "run")

    assert caught.value.error_id == error_id
    assert not (tmp_path / "run").exists()


def test_an_empty_site_takes_part_with_pure_noise(tmp_path: Path) -> None:
    rows = "a,y\n" + "".join(f"{i / 100},{i % 2}\n" for i in range(100))
    (tmp_path / "rows.csv").write_text(rows)
    parts = study_with().model_dump(mode="json", by_alias=True, exclude_none=True)
    parts["data"] = {
        "kind": "table",
        "dataset": "d",
        "target": "y",
        "columns": {"a": {"kind": "number", "low": 0.0, "high": 1.0}},
    }
    parts["simulation"] |= {
        "source": str(tmp_path / "rows.csv"),
        "sites": 50,
        "names": [f"s{i}" for i in range(50)],
        "public_sizes": [1] * 50,
    }
    study = Study.model_validate(parts)

    run = simulate(study, tmp_path / "run")

    assert run.rounds == 4


def test_the_budget_of_a_simulated_site_is_spent_once(finished: Run) -> None:
    with pytest.raises(BudgetSpent):
        _spend_beyond(finished)


def _spend_beyond(finished: Run) -> None:
    from guilder_shared.identity import SigningKey
    from guilder_shared.privacy.ledger import Ledger

    folder = finished.run_dir / "sites" / "site-1"
    key = SigningKey.load(folder / "signing.key")
    with Ledger.read(folder / "ledger.db", key) as ledger:
        (grant,) = ledger.grants()
        budgets = ledger.totals()
        officer = ledger.officer
    assert set(budgets) == {"simulation"}
    named: Any = {"site": "site-1", "officer": officer}
    with Ledger.open(folder / "ledger.db", key, **named) as writable:
        writable.spend(grant.grant_id, grant.num_turns + 1, "0" * 64)
