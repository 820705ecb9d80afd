"""A study runs here only as far as people at the site and its officer let it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guilder.cli import app
from guilder_client import policy, turn
from guilder_client.offers import ACCEPTED, REFUSED, Offers
from guilder_client.site import Site
from guilder_shared.errors import BudgetSpent, PolicyRefused
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Answer, Offer, TurnRequest, Verdict, pack
from guilder_shared.models import registry
from guilder_shared.officer import Officer, put
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

SiteAt = Callable[..., Site]
PARTS: dict[str, Any] = {
    "schema": 1,
    "study": {"name": "t", "recipe": "tabular-classification", "purpose": "to test"},
    "data": {
        "kind": "table",
        "dataset": "d",
        "target": "y",
        "columns": {"x": {"kind": "number", "low": 0.0, "high": 1.0}},
    },
    "model": {"name": "logistic"},
    "training": {
        "rounds": 4,
        "local_steps": 1,
        "sample_rate": 1.0,
        "learning_rate": 1.0,
    },
    "privacy": {
        "unit": "record",
        "mechanism": "site-noise",
        "epsilon": 2.0,
        "delta": 1e-6,
        "clip_norm": 1.0,
    },
    "aggregation": {"min_sites": 1, "round_deadline_s": 2.0, "spare_turns": 1},
    "evaluation": {"on": "none"},
}
STUDY = Study.model_validate(PARTS)
EDITED = Study.model_validate({**PARTS, "model": {"name": "mlp", "hidden": [4]}})
PLAN = accounting.solve(STUDY)
MODEL = pack(registry.initial(STUDY))
OFFER = Offer("run", STUDY.canonical(), PLAN)


@pytest.fixture
def asking(site_at: SiteAt, tmp_path: Path) -> Site:
    """A site where a person decides, and whose officer signed a standing rule."""
    (tmp_path / "data.csv").write_text("x,y\n0.2,0\n0.9,1\n")
    site_at(tmp_path).ledger.shut()  # with accept = "auto" the rule is signed
    return site_at(tmp_path, lambda text: text.replace('"auto"', '"ask"'))


@pytest.fixture
def unsigned(site_at: SiteAt, tmp_path: Path) -> Site:
    """A site where a person decides, and whose officer has permitted nothing."""
    (tmp_path / "data.csv").write_text("x,y\n0.2,0\n0.9,1\n")
    return site_at(tmp_path, lambda text: text.replace('"auto"', '"ask"'))


def guilder(folder: Path, *words: str) -> Any:
    return CliRunner().invoke(app, [*words, "--site", str(folder / "site.toml")])


def asked(answer: Answer, number: int = 1) -> TurnRequest:
    return TurnRequest("run", answer.grant_id, number, 1, STUDY.digest(), MODEL)


def test_a_study_that_nobody_decided_on_waits_and_can_be_looked_at(
    asking: Site, tmp_path: Path
) -> None:
    answer = policy.consider(asking, OFFER)

    listed = guilder(tmp_path, "client", "studies", "list").stdout
    shown = guilder(tmp_path, "client", "studies", "show", "t").stdout

    assert (answer.verdict, answer.grant_id) == (Verdict.BUSY, "")
    assert STUDY.digest()[:12] in listed
    assert "waits" in listed
    assert "to test" in shown
    assert "takes epsilon 2" in shown
    assert "lifetime 6, spent 0, reserved 0, this study 2, remaining 4" in shown
    assert "one sealed update of 2 noised numbers" in shown
    assert asking.ledger.grants() == []


@pytest.mark.attack("a server", "a study edited after it was accepted", "GLD-S008")
def test_an_accepted_study_runs_and_an_edited_one_does_not(
    asking: Site, tmp_path: Path
) -> None:
    policy.consider(asking, OFFER)

    done = guilder(tmp_path, "client", "studies", "accept", STUDY.digest())
    answer = policy.consider(asking, OFFER)
    edited = Offer("run", EDITED.canonical(), accounting.solve(EDITED))
    other = policy.consider(asking, edited)
    forged = replace(asked(answer), study_digest=EDITED.digest())

    assert done.exit_code == 0, done.output
    assert answer.verdict == Verdict.ACCEPTED
    assert other.verdict == Verdict.BUSY
    assert EDITED.digest() in other.reason
    refused = turn.take(asking, forged)
    assert refused.reason.startswith("GLD-S008")
    assert asking.ledger.find(answer.grant_id).turns == {}  # type: ignore[union-attr]
    assert turn.take(asking, asked(answer)).verdict == Verdict.DONE


def test_an_engineer_cannot_accept_what_no_order_of_the_officer_covers(
    unsigned: Site, tmp_path: Path
) -> None:
    policy.consider(unsigned, OFFER)

    done = guilder(tmp_path, "client", "studies", "accept", "t")
    after = policy.consider(unsigned, OFFER)

    assert isinstance(done.exception, BudgetSpent)
    assert done.exception.error_id == "GLD-B010"
    assert done.exception.exit_code == 4
    assert after.verdict == Verdict.BUSY


def approval(folder: Path, key: SigningKey) -> None:
    """Put an approval of the study into the site's drop box."""
    order = Officer(key, site="a").approve(STUDY.digest(), "t", epsilon=2, delta=1e-6)
    put(order, folder / "state" / "orders")


def test_an_approval_that_no_client_has_read_yet_is_enough_to_agree(
    unsigned: Site, tmp_path: Path
) -> None:
    policy.consider(unsigned, OFFER)
    approval(tmp_path, SigningKey.load(tmp_path / "officer.key"))

    done = guilder(tmp_path, "client", "studies", "accept", "t")

    assert done.exit_code == 0, done.output
    assert policy.consider(unsigned, OFFER).verdict == Verdict.ACCEPTED


@pytest.mark.attack("an engineer", "an approval signed by another key", "GLD-B010")
def test_an_approval_by_another_key_is_none(unsigned: Site, tmp_path: Path) -> None:
    policy.consider(unsigned, OFFER)
    approval(tmp_path, SigningKey.generate())

    done = guilder(tmp_path, "client", "studies", "accept", "t")

    assert isinstance(done.exception, BudgetSpent)
    assert done.exception.error_id == "GLD-B010"


@pytest.mark.attack("an engineer", "a decision written past the officer", "GLD-B010")
def test_a_forged_decision_file_does_not_replace_the_officer(
    unsigned: Site,
) -> None:
    policy.consider(unsigned, OFFER)
    assert unsigned.offers is not None

    unsigned.offers.decide(STUDY.digest(), ACCEPTED)
    answer = policy.consider(unsigned, OFFER)

    assert answer.verdict == Verdict.REFUSED_BY_BUDGET
    assert answer.reason.startswith("GLD-B010")


def test_the_officers_approval_is_consent_enough(
    unsigned: Site, tmp_path: Path
) -> None:
    policy.consider(unsigned, OFFER)
    officer = Officer(SigningKey.load(tmp_path / "officer.key"), site="a")
    put(
        officer.approve(STUDY.digest(), "t", epsilon=2.0, delta=1e-6),
        tmp_path / "state" / "orders",
    )

    assert policy.consider(unsigned, OFFER).verdict == Verdict.ACCEPTED


@pytest.mark.attack("a server", "turns of a study that was refused", "GLD-S061")
def test_a_refusal_holds_against_everybody_and_in_mid_study(
    site_at: SiteAt, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("x,y\n0.2,0\n0.9,1\n")
    site = site_at(tmp_path)  # accept = "auto"
    answer = policy.consider(site, OFFER)
    first = turn.take(site, asked(answer))

    done = guilder(tmp_path, "client", "studies", "refuse", "t")
    second = turn.take(site, asked(answer, 2))
    again = policy.consider(site, replace(OFFER, run_id="other"))
    guilder(tmp_path, "client", "studies", "accept", "t")

    assert done.exit_code == 0, done.output
    assert first.verdict == Verdict.DONE
    assert (second.verdict, second.update) == (Verdict.REFUSED_BY_POLICY, b"")
    assert second.reason.startswith("GLD-S061")
    assert again.reason.startswith("GLD-S061")
    assert turn.take(site, asked(answer, 2)).verdict == Verdict.DONE


def test_a_decision_that_cannot_be_read_is_a_refusal(tmp_path: Path) -> None:
    offers = Offers(tmp_path)
    offers.decide(STUDY.digest(), ACCEPTED)

    (tmp_path / f"{STUDY.digest()}.decision.json").write_text('{"decision":')

    assert offers.decision(STUDY.digest()) == REFUSED
    assert offers.decision(EDITED.digest()) == ""


def test_an_offer_file_that_was_edited_is_no_offer(tmp_path: Path) -> None:
    offers = Offers(tmp_path)
    offers.remember(OFFER, STUDY, Answer(Verdict.BUSY, "a", reason="GLD-S006: …"))
    path = tmp_path / f"{STUDY.digest()}.offer.json"
    path.rename(tmp_path / f"{EDITED.digest()}.offer.json")

    assert offers.all() == []
    with pytest.raises(PolicyRefused, match="no study is 't' here"):
        offers.find("t")


def test_a_server_that_offers_without_end_fills_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guilder_client.offers.MOST", 3)
    offers = Offers(tmp_path)
    for number in range(5):
        parts = {**PARTS, "study": {**PARTS["study"], "name": f"t{number}"}}
        study = Study.model_validate(parts)
        offer = Offer("run", study.canonical(), PLAN)
        offers.remember(offer, study, Answer(Verdict.BUSY, "a"))

    assert [each.read().study.name for each in offers.all()] == ["t4", "t3", "t2"]
    assert len(list(tmp_path.iterdir())) == 3
