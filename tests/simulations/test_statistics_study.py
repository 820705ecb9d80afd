"""A whole study of statistics: asked once, charged once, verified by both."""

import json
from pathlib import Path

import pytest

from guilder_shared import reports
from guilder_shared.study import Study
from guilder_simulations.engine import Run, simulate
from guilder_simulations.studies import path_of
from guilder_verifier.check import check


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.load(path_of("payment-figures"))


@pytest.fixture(scope="module")
def finished(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(study, tmp_path_factory.mktemp("run"))


def test_all_questions_are_answered_of_all_sites_together(finished: Run) -> None:
    found = finished.metrics

    assert found["customers"] == pytest.approx(6000, abs=150)
    assert found["amounts.0.25"] < found["amounts.0.5"] < found["amounts.0.75"]
    assert 20 < found["amount.mean"] < 300
    hours = [value for name, value in found.items() if name.startswith("hours.")]
    assert sum(hours) == pytest.approx(6000, abs=200)


def test_it_is_one_turn_of_one_event_and_asked_again_changes_nothing(
    study: Study, finished: Run
) -> None:
    again = simulate(study, finished.run_dir)
    path = finished.run_dir / "reports" / "site-1.report.json"
    (told,) = json.loads(path.read_bytes())["studies"]

    assert again.metrics == finished.metrics
    (event,) = told["events"]
    assert (event["num_turns"], event["num_turns_spent"]) == (1, 1)
    assert event["event"]["of"]["event"] == "gaussian"
    assert 0.99 < (reports.verify(path).studies[0].recomputed_epsilon or 0) <= 1
    assert check(path.read_bytes())["studies"][0]["protected"] is True


def test_single_payments_can_be_counted_with_laplace_noise(
    tmp_path: Path, study: Study
) -> None:
    whole = study.model_dump(mode="json", by_alias=True, exclude_none=True)
    whole["privacy"] |= {"unit": "record"}
    del whole["privacy"]["max_records"]
    whole["statistics"] = {"noise": "laplace", "ask": {"payments": {"ask": "count"}}}

    run = simulate(Study.model_validate(whole), tmp_path)

    assert run.metrics["payments"] == pytest.approx(80_000, rel=0.05)
    report = tmp_path / "reports" / "site-1.report.json"
    assert check(report.read_bytes())["studies"][0]["protected"] is True
