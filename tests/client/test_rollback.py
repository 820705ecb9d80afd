"""Yesterday's ledger is refused; what is lost is charged before the site goes on.

What a server signs about a ledger is kept with receipts; a forged one is refused.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guilder_client import policy, turn
from guilder_client.site import Site
from guilder_server.heads import Heads
from guilder_shared import wire, witnessing
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.messages import (
    Close,
    Head,
    Offer,
    Receipt,
    TurnReply,
    TurnRequest,
    Verdict,
    pack,
    sha256,
)
from guilder_shared.models import registry
from guilder_shared.officer import Officer, put
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

SiteAt = Callable[..., Site]
Disk = Any  # the fixture `disk`; see conftest.py
PERIOD = "period = { days = 30, epsilon = 3.0 }"
STUDY = Study.load(Path(__file__).parents[1] / "small.toml")
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
    site_at: SiteAt, folder: Path, disk: Disk
) -> None:
    site = site_at(folder)
    first = take(site, 1, None).head
    site.ledger.shut()
    copy = disk.copy(folder)
    site = site_at(folder)
    newest = take(site, 2, first).head
    site.ledger.shut()
    disk.put_back(folder, copy)
    site = site_at(folder)

    reply = take(site, 2, newest)

    assert reply.verdict == Verdict.REFUSED_BY_POLICY
    assert "GLD-I080" in reply.reason
    assert newest is not None
    assert f"2:{newest.commitment}" in reply.reason
    (grant,) = site.ledger.grants()
    assert list(grant.turns) == [1]


@pytest.mark.attack("a site", "a ledger that went on from an old copy", "GLD-I081")
def test_a_ledger_that_went_on_from_an_old_copy_is_found(
    site_at: SiteAt, folder: Path, disk: Disk
) -> None:
    site = site_at(folder)
    first = take(site, 1, None).head
    site.ledger.shut()
    copy = disk.copy(folder)
    site = site_at(folder)
    newest = take(site, 2, first).head
    site.ledger.shut()
    disk.put_back(folder, copy)
    site = site_at(folder)
    take(site, 2, first)  # a server that forgot does not notice

    assert "GLD-I081" in take(site, 3, newest).reason


def test_the_officer_charges_what_is_lost_and_the_site_goes_on(
    site_at: SiteAt, folder: Path, disk: Disk
) -> None:
    site = site_at(folder)
    site.ledger.shut()
    copy = disk.copy(folder)
    site = site_at(folder)
    newest = take(site, 1, None).head
    assert newest is not None
    site.ledger.shut()
    disk.put_back(folder, copy)
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
    path = tmp_path / "heads.json"
    heads = Heads(path)
    heads.remember({"a": Head(1, "x"), "b": Head(4, "y")}, run_id="r1")
    heads.remember({"a": Head(2, "z")}, run_id="r2")

    again = Heads(path)

    assert again.newest("a") == Head(2, "z")
    assert again.newest("c") is None
    assert again.runs_after("a", 0) == {"r1": 1, "r2": 1}
    assert again.runs_after("a", 1) == {"r2": 1}
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


def take_second(site: Site, first: TurnReply, witness: Head | None) -> TurnReply:
    """Turn 2, asked for with the receipt of turn 1."""
    asked = TurnRequest("r", first.grant_id, 2, 2, STUDY.digest(), MODEL)
    receipt = Receipt(1, sha256(first.update))
    return turn.take(site, replace(asked, witness=witness, receipt=receipt))


def test_a_receipt_keeps_what_the_server_signed(site_at: SiteAt, folder: Path) -> None:
    site = site_at(folder)
    first = take(site, 1, None)
    assert first.head is not None
    key = SigningKey.generate()

    reply = take_second(site, first, witnessing.signed(first.head, "a", key))

    assert reply.verdict == Verdict.DONE
    (receipt,) = [e for e in site.ledger.entries() if e.kind == "receipt"]
    kept_body = json.loads(receipt.body)["witness"]
    assert kept_body["server_key"] == key.public_hex
    assert kept_body["commitment"] == first.head.commitment
    assert witnessing.is_signed(kept_body, "a")
    assert not witnessing.is_signed(kept_body, "b")
    assert not witnessing.is_signed({**kept_body, "head_no": 2}, "a")
    site.ledger.shut()
    assert site_at(folder).ledger.grants()[0].turns[1].receipt is not None


@pytest.mark.attack("a server", "a forged word about a ledger", "GLD-I084")
def test_a_witness_that_its_key_did_not_sign_is_refused_before_a_charge(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder)
    first = take(site, 1, None)
    assert first.head is not None
    signed = witnessing.signed(first.head, "a", SigningKey.generate())
    forgeries = (
        replace(signed, signature="00" * 64),
        replace(signed, signature="no hex"),
        replace(signed, server_key=SigningKey.generate().public_hex),
        witnessing.signed(first.head, "b", SigningKey.generate()),
    )

    for forged in forgeries:
        reply = take_second(site, first, forged)
        assert reply.verdict == Verdict.REFUSED_BY_POLICY
        assert "GLD-I084" in reply.reason
    (grant,) = site.ledger.grants()
    assert list(grant.turns) == [1]


def test_an_older_ledger_that_is_asked_to_close_frees_nothing(
    site_at: SiteAt, folder: Path, disk: Disk
) -> None:
    site = site_at(folder)
    answer = policy.consider(site, Offer("r", STUDY.canonical(), PLAN))
    site.ledger.shut()
    yesterday = disk.copy(folder)
    site = site_at(folder)
    newest = take(site, 1, None).head
    site.ledger.shut()
    disk.put_back(folder, yesterday)
    site = site_at(folder)

    with pytest.raises(IntegrityError) as raised:
        turn.close(site, Close("r", answer.grant_id, None, newest))

    assert raised.value.error_id == "GLD-I080"
    (grant,) = site.ledger.grants()
    assert not grant.closed
    assert site.ledger.totals()["people"].left_epsilon == 4.0


def test_what_is_lost_counts_in_the_period_in_which_it_is_charged(
    site_at: SiteAt, folder: Path, disk: Disk
) -> None:
    def with_period(text: str) -> str:
        return text.rstrip() + "\n" + PERIOD + "\n"

    site = site_at(folder, with_period)
    site.ledger.shut()
    yesterday = disk.copy(folder)
    site = site_at(folder, with_period)
    newest = take(site, 1, None).head
    assert newest is not None
    site.ledger.shut()
    disk.put_back(folder, yesterday)
    officer = Officer(SigningKey.load(folder / "officer.key"), site="a")
    lost = officer.acknowledge(
        site.settings.site.server,
        newest.head_no,
        newest.commitment,
        budget="people",
        epsilon=2.0,
        delta=1e-6,
    )
    put(lost, folder / "state" / "orders")

    for _ in range(2):  # the second time from the ledger's entries alone
        site = site_at(folder, with_period)
        reply = take(site, 1, newest, "r2")  # 2 + 2 of the period's 3
        site.ledger.shut()
        assert reply.verdict == Verdict.REFUSED_BY_BUDGET
        assert "GLD-B016" in reply.reason


def test_a_signed_witness_survives_the_wire_and_an_older_peer_has_none() -> None:
    head = witnessing.signed(Head(3, "c" * 64), "a", SigningKey.generate())
    close = Close("r", "g", Receipt(2, "d" * 64), head)

    assert wire.decode_close(wire.encode_close(close)) == close
    unsigned = replace(close, witness=Head(3, "c" * 64))
    assert wire.decode_close(wire.encode_close(unsigned)) == unsigned
    older = wire.encode_close(close)
    for name in [n for n in older.config_records["guilder"] if "witness" in n]:
        del older.config_records["guilder"][name]
    assert wire.decode_close(older) == replace(close, witness=None)


def test_a_server_signs_with_one_key_for_ever_and_tells_when_its_memory_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heads = Heads.open(tmp_path, has_runs=False)
    heads.remember({"a": Head(1, "x")}, run_id="r1")

    again = Heads.open(tmp_path, has_runs=True)
    newest = again.newest("a")

    assert newest is not None
    assert newest.server_key == heads.server_key == again.server_key
    assert witnessing.is_signed(witnessing.as_body(newest) or {}, "a")
    assert "GLD-I085" not in caplog.text
    (tmp_path / "heads.json").unlink()
    with caplog.at_level(logging.ERROR):
        assert Heads.open(tmp_path, has_runs=True).newest("a") is None
    assert "GLD-I085" in caplog.text
