"""Charged metrics in a whole simulation: measured, reported, the same again."""

import json
from pathlib import Path

import pytest

from guilder_shared import reports
from guilder_shared.study import Study
from guilder_simulations.engine import Run, simulate
from guilder_simulations.studies import path_of
from guilder_verifier.check import check

CHARGED = (
    "training.rounds=4",
    "evaluation.on=charged",
    "evaluation.rows=0.4",
    "evaluation.share=1.0",
    "privacy.epsilon=8",
)


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.load(path_of("breast-cancer"), CHARGED)


@pytest.fixture(scope="module")
def finished(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(study, tmp_path_factory.mktemp("run"))


def test_the_last_model_is_measured_on_what_the_sites_held_out(finished: Run) -> None:
    assert set(finished.metrics) == {"accuracy", "auc", "loss"}
    assert finished.metrics["accuracy"] > 0.6  # of 220 rows, with noise
    assert all(0 < epsilon <= 8 for epsilon in finished.epsilon.values() if epsilon)


def test_the_same_seed_gives_the_same_metrics(
    study: Study, finished: Run, tmp_path: Path
) -> None:
    assert simulate(study, tmp_path).metrics == finished.metrics


def test_the_report_tells_what_was_measured_and_both_verifiers_agree(
    finished: Run,
) -> None:
    path = finished.run_dir / "reports" / "site-1.report.json"
    report = json.loads(path.read_bytes())

    (study,) = report["studies"]
    assert study["events"][0]["event"]["event"] == "parallel"
    entries = report["ledger"]["entries"]
    charges = [each["body"] for each in entries if each["kind"] == "spend"]
    assert [body.get("measures", 0) for body in charges] == [0, 0, 0, 0, 5]
    verified = reports.verify(path)
    assert verified.studies[0].recomputed_epsilon is not None
    assert verified.studies[0].recomputed_epsilon <= 8
    assert check(path.read_bytes())["studies"][0]["protected"] is True
    page = path.with_suffix("").with_suffix(".report.html")
    assert "parallel: " in page.read_text("utf-8")


def test_metrics_by_round_cost_the_same_and_all_verifiers_agree(
    finished: Run, tmp_path: Path
) -> None:
    by_round = Study.load(path_of("breast-cancer"), (*CHARGED, "evaluation.every=2"))

    run = simulate(by_round, tmp_path)

    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").open()]
    told = [line for line in lines if line["name"] == "accuracy"]
    assert [line["round"] for line in told] == [2, 4]
    assert run.metrics["accuracy"] == told[-1]["value"]
    assert run.epsilon == finished.epsilon
    path = tmp_path / "reports" / "site-1.report.json"
    entries = json.loads(path.read_bytes())["ledger"]["entries"]
    charges = [each["body"] for each in entries if each["kind"] == "spend"]
    assert [body.get("measures", 0) for body in charges] == [0, 0, 3, 0, 2]
    assert reports.verify(path).studies[0].num_turns_spent == 5
    assert check(path.read_bytes())["studies"][0]["protected"] is True
