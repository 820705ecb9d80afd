"""The self-test at a site: before anything is reserved, and told to nobody outside."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guilder.cli import app
from guilder_client import policy
from guilder_client.site import Site
from guilder_shared.messages import Offer, Plan, Verdict
from guilder_shared.privacy import accounting, noise
from guilder_shared.study import Study
from guilder_shared.training.selftest import verdict

OpenSite = Callable[..., Site]

STUDY = Study.load(
    Path(__file__).parents[1] / "small.toml",
    (
        "aggregation.round_deadline_s=600",
        "training.rounds=4",
    ),
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return accounting.solve(STUDY)


@pytest.fixture
def site(site_at: OpenSite, tmp_path: Path) -> Site:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "data.csv").write_text("x,y\n0.2,0\n0.9,1\n")
    return site_at(tmp_path / "a")


@pytest.fixture
def halved(monkeypatch: pytest.MonkeyPatch) -> None:
    in_grids = noise.in_grids
    monkeypatch.setattr(noise, "in_grids", lambda std, grid: in_grids(std, grid) / 2)
    monkeypatch.setattr(verdict, "_passed", {})


@pytest.mark.usefixtures("halved")
@pytest.mark.attack("who changed the installed code", "half the noise", "GLD-P070")
def test_a_study_whose_noise_is_halved_here_is_refused_and_nothing_is_charged(
    site: Site, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = policy.consider(site, Offer("r", STUDY.canonical(), plan))

    assert answer.verdict == Verdict.REFUSED_BY_POLICY
    assert answer.reason == "GLD-P070: the self-test of this study failed here."
    assert "the noise's standard deviation" in caplog.text
    assert site.ledger.grants() == []


def test_a_study_that_passes_is_tested_once_and_accepted(
    site: Site, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Any] = []
    run = verdict.run
    monkeypatch.setattr(verdict, "_passed", {})

    def count(*arguments: Any, **options: Any) -> verdict.Passed:
        runs.append(arguments)
        return run(*arguments, **options)

    monkeypatch.setattr(verdict, "run", count)

    answers = [
        policy.consider(site, Offer(name, STUDY.canonical(), plan)).verdict
        for name in ("r1", "r2")
    ]

    assert answers == [Verdict.ACCEPTED] * 2
    assert len(runs) == 1


def test_a_study_that_policy_refuses_is_not_tested(
    site: Site, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "run", None)
    changed = STUDY.study.model_copy(update={"recipe": "mind-reading"})
    other = STUDY.model_copy(update={"study": changed})

    answer = policy.consider(site, Offer("r", other.canonical(), plan))

    assert answer.reason.startswith("GLD-C060")


def test_the_engineer_can_run_it_on_demand(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.ledger.shut()
    monkeypatch.setattr(Study, "load", lambda _path: STUDY)
    site_file = str(tmp_path / "a" / "site.toml")
    arguments = ["client", "check", "--offline", "--site", site_file]

    said = CliRunner().invoke(app, [*arguments, "--study", "study.toml"])

    assert said.exit_code == 3, said.output  # this site has no certificate
    assert "self-test passed" in said.output
