"""Yesterday's ledger is refused; what is lost is charged before the site goes on."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from guilder_client import policy, turn
from guilder_client.site import Site
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Head, Offer, TurnReply, TurnRequest, Verdict, pack
from guilder_shared.models import registry
from guilder_shared.officer import Officer, put
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

SiteAt = Callable[..., Site]
STUDY = Study.model_validate(
    {
        "schema": 1,
        "study": {"name": "t", "recipe": "tabular-classification", "purpose": "test"},
        "data": {
            "kind": "table",
            "dataset": "d",
            "target": "y",
            "columns": {"x": {"kind": "number", "low": 0.0, "high": 1.0}},
        },
        "model": {"name": "logistic"},
        "training": {
            "rounds": 3,
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
        "aggregation": {"min_sites": 1, "round_deadline_s": 1.0, "spare_turns": 1},
        "evaluation": {"on": "none"},
    }
)
PLAN = accounting.solve(STUDY)
MODEL = pack(registry.initial(STUDY))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_text("x,y\n" + "0.2,0\n0.9,1\n" * 20)
    return tmp_path


def take(site: Site, turn_no: int, witness: Head | None, run: str = "r") -> TurnReply:
    offer = Offer(run, STUDY.canonical(), PLAN, witness)
    answer = policy.consider(site, offer)
    if answer.verdict != Verdict.ACCEPTED:
        return TurnReply(answer.verdict, "", turn_no, turn_no, reason=answer.reason)
    asked = TurnRequest(run, answer.grant_id, turn_no, turn_no, STUDY.digest(), MODEL)
    return turn.take(site, replace(asked, witness=witness))


def kept(folder: Path) -> Path:
    """A copy of the state folder as it is now."""
    copy = folder / "yesterday"
    shutil.copytree(folder / "state", copy)
    return copy


def put_back(folder: Path, copy: Path) -> None:
    shutil.rmtree(folder / "state")
    shutil.copytree(copy, folder / "state")


def test_each_reply_commits_to_the_next_number_and_a_repeat_to_the_same(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder)

    first = take(site, 1, None).head
    again = take(site, 1, first).head
    second = take(site, 2, first).head

    assert first is not None
    assert again == first
    assert second is not None
    assert (first.head_no, second.head_no) == (1, 2)
    assert take(site, 3, first).verdict == Verdict.DONE  # a server may know less


def test_an_older_ledger_charges_nothing_and_says_what_to_do(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder)
    first = take(site, 1, None).head
    site.ledger.shut()
    copy = kept(folder)
    site = site_at(folder)
    newest = take(site, 2, first).head
    site.ledger.shut()
    put_back(folder, copy)
    site = site_at(folder)

    reply = take(site, 2, newest)

    assert reply.verdict == Verdict.REFUSED_BY_POLICY
    assert "GLD-I080" in reply.reason
    assert newest is not None
    assert f"2:{newest.commitment}" in reply.reason
    (grant,) = site.ledger.grants()
    assert list(grant.turns) == [1]


def test_a_ledger_that_went_on_from_an_old_copy_is_found(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder)
    first = take(site, 1, None).head
    site.ledger.shut()
    copy = kept(folder)
    site = site_at(folder)
    newest = take(site, 2, first).head
    site.ledger.shut()
    put_back(folder, copy)
    site = site_at(folder)
    take(site, 2, first)  # a server that forgot does not notice

    assert "GLD-I081" in take(site, 3, newest).reason


def test_the_officer_charges_what_is_lost_and_the_site_goes_on(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder)
    site.ledger.shut()
    copy = kept(folder)
    site = site_at(folder)
    newest = take(site, 1, None).head
    assert newest is not None
    site.ledger.shut()
    put_back(folder, copy)
    site = site_at(folder)
    officer = Officer(SigningKey.load(folder / "officer.key"), site="a")
    lost = officer.acknowledge(
        site.settings.site.server,
        newest.head_no,
        newest.commitment,
        budget="people",
        epsilon=2.5,
        delta=1e-6,
    )
    put(lost, folder / "state" / "orders")

    reply = take(site, 1, newest, "r2")

    assert reply.verdict == Verdict.DONE
    assert reply.head is not None
    assert reply.head.head_no == 2
    totals = site.ledger.totals()["people"]
    assert totals.spent_epsilon == 4.5
    assert totals.left_epsilon == 1.5
    assert min(totals.renyi_used.values()) > 1  # the plain sum alone decides now
    site.ledger.shut()
    assert take(site_at(folder), 2, reply.head, "r2").verdict == Verdict.DONE


def test_what_one_server_remembers_stops_no_other_servers_studies(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder)
    made_up = Head(7, "a" * 64)

    assert "GLD-I080" in take(site, 1, made_up).reason
    assert site.ledger.grants() == []
    assert take(site, 1, None).verdict == Verdict.DONE


def test_a_server_keeps_heads_over_restarts_and_tells_a_fork(tmp_path: Path) -> None:
    from guilder_server.heads import Heads

    path = tmp_path / "heads.json"
    heads = Heads(path)
    heads.remember({"a": Head(1, "x"), "b": Head(4, "y")})
    heads.remember({"a": Head(2, "z")})

    again = Heads(path)

    assert again.newest("a") == Head(2, "z")
    assert again.newest("c") is None
    again.check("a", Head(1, "x"))
    again.check("a", Head(3, "new"))
    again.check("c", None)
    for forged in (Head(2, "other"), None):
        with pytest.raises(IntegrityError) as raised:
            again.check("a", forged)
        assert raised.value.error_id == "GLD-I082"
    path.write_text("{")
    with pytest.raises(IntegrityError) as raised:
        Heads(path)
    assert raised.value.error_id == "GLD-I083"
