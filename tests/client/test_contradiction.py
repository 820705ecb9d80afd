"""Accountants that contradict each other, planted one by one: no study begins."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guilder_client import policy
from guilder_client.site import Site
from guilder_shared.messages import Offer, Verdict
from guilder_shared.privacy import accounting, bounds, prv
from guilder_shared.study import Study

SiteAt = Callable[..., Site]
STUDY = Study.load(
    Path(__file__).parents[1] / "small.toml",
    (
        "training.local_steps=4",
        "training.sample_rate=0.5",
    ),
)
PLAN = accounting.solve(STUDY)
Plant = Callable[[pytest.MonkeyPatch], None]


def third_is_off(factor: float) -> Plant:
    """The third accountant's figures are so many times what they should be."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        true = prv.epsilon

        def wrong(*arguments: Any) -> Any:
            found = true(*arguments)
            assert found is not None
            changed = {name: factor * value for name, value in vars_of(found).items()}
            return found._replace(**changed)

        patch.setattr(prv, "epsilon", wrong)

    return plant


def vars_of(found: Any) -> dict[str, float]:
    return {name: getattr(found, name) for name in ("lower", "estimate", "upper")}


def loose_is_below(patch: pytest.MonkeyPatch) -> None:
    """The Rényi bound, which must be the loose one, is the smaller."""
    true = bounds.renyi_epsilon
    patch.setattr(bounds, "renyi_epsilon", lambda *a, **n: 0.7 * true(*a, **n))
    bounds.epsilon.cache_clear()


@pytest.mark.parametrize(
    "plant",
    [third_is_off(0.93), third_is_off(1.06), loose_is_below],
    ids=["PRV too small", "PRV too large", "RDP below PLD"],
)
def test_a_site_begins_no_study_on_which_accountants_disagree(
    site_at: SiteAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Plant
) -> None:
    (tmp_path / "data.csv").write_text("x,y\n" + "0.2,0\n0.9,1\n" * 20)
    site = site_at(tmp_path)
    offer = Offer("r", STUDY.canonical(), PLAN)

    with monkeypatch.context() as patch:
        plant(patch)
        answer = policy.consider(site, offer)
    bounds.epsilon.cache_clear()

    assert answer.verdict == Verdict.REFUSED_BY_POLICY
    assert answer.reason.startswith("GLD-P004")
    assert site.ledger.grants() == []
    again = policy.consider(site, replace(offer, run_id="r2"))
    assert again.verdict == Verdict.ACCEPTED
    (grant,) = site.ledger.grants()
    assert grant.evidence is not None
    assert {"pld", "prv", "rdp"} <= grant.evidence.keys()
