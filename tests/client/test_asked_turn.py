"""A deployed site that is asked for statistics: allowed, charged, answered once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guilder_client import policy, turn
from guilder_client.site import Site
from guilder_shared.messages import MEASURED, Offer, TurnRequest, Verdict, pack, unpack
from guilder_shared.privacy import accounting, noise
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study
from guilder_shared.training import asked
from guilder_shared.training.selftest import verdict

SiteAt = Callable[..., Site]
STUDY = Study.model_validate(
    {
        "schema": 1,
        "study": {"name": "f", "recipe": "statistics", "purpose": "p"},
        "data": {"kind": "columns", "dataset": "d"}
        | {"columns": {"x": {"kind": "number", "low": 0.0, "high": 1.0}}},
        "statistics": {
            "noise": "gaussian",
            "ask": {"rows": {"ask": "count"}, "x": {"ask": "mean", "column": "x"}},
        },
        "privacy": {"unit": "record", "mechanism": "site-noise"}
        | {"epsilon": 2.0, "delta": 1e-6},
        "aggregation": {"min_sites": 1},
    }
)
PLAN = accounting.solve(STUDY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cells = "".join(f"{n / 500}\n" for n in range(500))
    (tmp_path / "data.csv").write_text("x\n" + cells + "nan\ntext\n")
    return tmp_path


def allowing(text: str) -> str:
    return text.replace(
        'recipes = ["tabular-classification"', 'recipes = ["statistics"'
    )


def request(site: Site, **changes: Any) -> TurnRequest:
    answer = policy.consider(site, Offer("run-1", STUDY.canonical(), PLAN))
    assert answer.verdict == Verdict.ACCEPTED, answer
    asked_ = TurnRequest("run-1", answer.grant_id, 1, 1, STUDY.digest(), pack({}))
    return replace(asked_, **changes)


def test_a_site_that_does_not_allow_the_recipe_refuses_it(
    folder: Path, site_at: SiteAt
) -> None:
    answer = policy.consider(site_at(folder), Offer("r", STUDY.canonical(), PLAN))

    assert answer.verdict == Verdict.REFUSED_BY_POLICY
    assert "GLD-S001" in answer.reason


def test_it_answers_near_the_truth_once_and_the_same_when_asked_again(
    folder: Path, site_at: SiteAt
) -> None:
    site = site_at(folder, allowing)
    asked_ = request(site)

    reply = turn.take(site, asked_)

    assert reply.verdict == Verdict.DONE
    num = sum(asked.widths(STUDY).values())
    vector = unpack(reply.update, {MEASURED: (num,)})[MEASURED].astype(np.float64)
    found = asked.answers(STUDY, vector)
    assert found["rows"] == pytest.approx(502, abs=40)  # eight deviations and more
    assert found["x.mean"] == pytest.approx(0.5, abs=0.1)
    assert turn.take(site, asked_) == reply
    second = turn.take(site, replace(asked_, turn_no=2))
    assert second.verdict == Verdict.REFUSED_BY_BUDGET
    (grant,) = site.ledger.grants()
    assert len(grant.turns) == grant.num_turns == 1


def test_killed_before_the_seal_it_counts_again_with_fresh_noise(
    folder: Path, site_at: SiteAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_at(folder, allowing)
    asked_ = request(site)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "seal", killed)
        with pytest.raises(KeyboardInterrupt):
            turn.take(site, asked_)
    lost = site.sealed.path(asked_.grant_id, 1).read_bytes()
    reply = turn.take(site, asked_)

    assert reply.verdict == Verdict.DONE
    assert reply.update != lost  # and the lost bytes were never sent
    (grant,) = site.ledger.grants()
    assert [turn_.attempts for turn_ in grant.turns.values()] == [2]


def test_a_server_that_asks_for_training_gets_none(
    folder: Path, site_at: SiteAt
) -> None:
    site = site_at(folder, allowing)

    reply = turn.take(site, request(site, round_no=2))

    assert reply.verdict == Verdict.REFUSED_BY_POLICY
    (grant,) = site.ledger.grants()
    assert not grant.turns


def test_what_is_no_number_is_a_row_without_one(folder: Path, site_at: SiteAt) -> None:
    site = site_at(folder, allowing)
    rows = site.source("d").read(STUDY.site_contract)

    assert len(rows) == 502
    assert np.isnan(rows.inputs[-2:]).all()


def test_a_site_whose_noise_is_halved_refuses_before_anything_is_charged(
    folder: Path, site_at: SiteAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, in_grids = site_at(folder, allowing), noise.in_grids
    monkeypatch.setattr(noise, "in_grids", lambda std, grid: in_grids(std, grid) / 2)
    monkeypatch.setattr(verdict, "_passed", {})

    answer = policy.consider(site, Offer("run-1", STUDY.canonical(), PLAN))

    assert answer.verdict == Verdict.REFUSED_BY_POLICY
    assert answer.reason == "GLD-P070: the self-test of this study failed here."
    assert site.ledger.grants() == []
