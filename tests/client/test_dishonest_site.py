"""An engineer with the disk and the site's key tries to spend twice; servers notice."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guilder_client import policy, turn
from guilder_client.site import Site
from guilder_server.heads import Heads
from guilder_shared.errors import BudgetSpent, IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal
from guilder_shared.messages import (
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
from guilder_shared.officer import make_key
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

SiteAt = Callable[..., Site]
Disk = Any  # the fixture `disk`; see conftest.py
STUDY = Study.load(Path(__file__).parents[1] / "small.toml")
PLAN = accounting.solve(STUDY)
MODEL = pack(registry.initial(STUDY))


class Server:
    """What a server does with a site's replies: remembers, and tells it each time."""

    def __init__(self) -> None:
        self.heads = Heads(None, SigningKey.generate())
        self.grant = ""

    def request(self, site: Site, turn_no: int, run: str = "r") -> TurnRequest:
        told = self.heads.newest("a")
        answer = policy.consider(site, Offer(run, STUDY.canonical(), PLAN, told))
        self.grant = answer.grant_id or self.grant
        turns = (turn_no, turn_no)
        return TurnRequest(run, self.grant, *turns, STUDY.digest(), MODEL, None, told)

    def ask(self, site: Site, turn_no: int, run: str = "r") -> TurnReply:
        reply = turn.take(site, self.request(site, turn_no, run))
        if reply.verdict == Verdict.DONE:
            self.heads.check("a", reply.head)
            assert reply.head is not None
            self.heads.remember({"a": reply.head}, run_id=run)
        return reply

    def refusal(self, site: Site, run: str = "more") -> str:
        told = self.heads.newest("a")
        return policy.consider(site, Offer(run, STUDY.canonical(), PLAN, told)).reason


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "data.csv").write_text("x,y\n" + "0.2,0\n0.9,1\n" * 20)
    return tmp_path / "one"


@pytest.mark.attack("a site", "two machines with one ledger", "GLD-I080")
def test_two_machines_with_one_state_dir_cannot_both_go_on(
    site_at: SiteAt, folder: Path
) -> None:
    server = Server()
    first = site_at(folder)
    server.ask(first, 1)
    first.ledger.shut()
    second_machine = folder.parent / "two"
    shutil.copytree(folder, second_machine)
    first, second = site_at(folder), site_at(second_machine)

    assert server.ask(first, 2).verdict == Verdict.DONE
    assert "GLD-I080" in server.ask(second, 2).reason
    assert "GLD-I080" in server.refusal(second)
    assert list(second.ledger.grants()[0].turns) == [1]


@pytest.mark.attack("a site", "two results under one number of the ledger", "GLD-I082")
def test_two_machines_that_sealed_the_same_number_are_found_by_the_server(
    site_at: SiteAt, folder: Path
) -> None:
    server = Server()
    site_at(folder).ledger.shut()
    second_machine = folder.parent / "two"
    shutil.copytree(folder, second_machine)
    first, second = site_at(folder), site_at(second_machine)
    requests = [server.request(each, 1) for each in (first, second)]  # at one moment

    replies = [
        turn.take(each, request)
        for each, request in zip((first, second), requests, strict=True)
    ]

    server.heads.check("a", replies[0].head)
    assert replies[0].head is not None
    server.heads.remember({"a": replies[0].head}, run_id="r")
    with pytest.raises(IntegrityError) as raised:
        server.heads.check("a", replies[1].head)
    assert raised.value.error_id == "GLD-I082"
    assert "GLD-I081" in server.refusal(second)


def test_a_machine_put_back_to_the_middle_of_a_turn_gives_no_second_result(
    site_at: SiteAt, folder: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    site = site_at(folder)
    train = turn._train

    def snapshot(*args: object) -> object:
        disk.copy(folder, "snapshot")  # charged, and not sealed
        return train(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(turn, "_train", snapshot)
        first = server.ask(site, 1)
    site.ledger.shut()
    disk.put_back(folder, folder / "snapshot")
    site = site_at(folder)

    again = server.ask(site, 1)

    assert first.verdict == Verdict.DONE
    assert (again.verdict, again.update) == (Verdict.REFUSED_BY_POLICY, b"")
    (grant,) = site.ledger.grants()
    assert grant.turns[1].attempts == 1  # it was charged before, and not begun again


@pytest.mark.attack("a site", "a ledger written anew without its charges", "GLD-I080")
def test_a_ledger_written_anew_with_the_sites_own_key_is_found(
    site_at: SiteAt, folder: Path
) -> None:
    server = Server()
    site = site_at(folder)
    server.ask(site, 1)
    entries = site.ledger.entries()
    site.ledger.shut()
    (folder / "state" / "ledger.db").unlink()
    (folder / "state" / "ledger.db.lock").unlink()
    key = SigningKey.load(folder / "signing.key")
    forged = Journal.open(folder / "state" / "ledger.db", key)
    for entry in entries:  # all that was decided, and nothing that was charged
        if entry.kind in ("ledger", "order"):
            forged.append(entry.kind, entry.content())
    forged.close()
    site = site_at(folder)

    assert site.ledger.totals()["people"].spent_epsilon == 0
    assert "GLD-I080" in server.refusal(site)


@pytest.mark.attack("a site", "another officer under an old ledger", "GLD-B017")
def test_a_ledger_begun_anew_with_an_officer_of_ones_own_is_found(
    site_at: SiteAt, folder: Path
) -> None:
    server = Server()
    site = site_at(folder)
    server.ask(site, 1)
    site.ledger.shut()
    for name in ("officer.key", "officer.pub"):
        (folder / name).unlink()
    make_key(folder)
    with pytest.raises(BudgetSpent) as raised:
        site_at(folder)
    assert raised.value.error_id == "GLD-B017"
    shutil.rmtree(folder / "state")

    site = site_at(folder)

    assert site.ledger.totals()["people"].left_epsilon == 6
    assert "GLD-I080" in server.refusal(site)


@pytest.mark.attack("a site", "an officer's old orders put back", "GLD-S003")
def test_old_orders_put_back_give_nothing_back(
    site_at: SiteAt, folder: Path, disk: Disk
) -> None:
    site = site_at(folder)
    site.ledger.shut()
    generous = disk.copy(folder, "generous") / "orders"
    site = site_at(folder, lambda text: text.replace("epsilon = 6.0", "epsilon = 1.0"))
    site.ledger.shut()
    shutil.rmtree(folder / "state" / "orders")
    shutil.copytree(generous, folder / "state" / "orders")

    site = site_at(folder, lambda text: text.replace("epsilon = 6.0", "epsilon = 1.0"))

    assert site.ledger.budgets()["people"].epsilon == 1
    assert "GLD-S003" in Server().refusal(site)


def test_a_server_that_plays_a_request_again_gets_the_same_bytes(
    site_at: SiteAt, folder: Path
) -> None:
    server = Server()
    site = site_at(folder)
    request = server.request(site, 1)
    first = turn.take(site, request)
    later = replace(request, model=pack(registry.initial(STUDY)))
    site.ledger.shut()
    site = site_at(folder)

    assert turn.take(site, request) == first
    assert turn.take(site, replace(later, witness=None)) == first
    assert turn.take(site, replace(request, turn_no=2)).verdict == Verdict.DONE
    assert turn.take(site, request).update == first.update
    (grant,) = site.ledger.grants()
    assert {n: t.attempts for n, t in grant.turns.items()} == {1: 1, 2: 1}


@pytest.mark.attack("a server", "rounds replayed to drain a budget", "GLD-B004")
def test_rounds_replayed_a_thousand_times_cost_what_the_plan_says(
    site_at: SiteAt, folder: Path
) -> None:
    server = Server()
    site = site_at(folder)
    request = server.request(site, 1)
    first = turn.take(site, request)
    entries = len(site.ledger.entries())

    for _ in range(1000):
        assert turn.take(site, request) == first
    assert len(site.ledger.entries()) == entries
    replies = [
        turn.take(site, replace(request, turn_no=turn_no))
        for turn_no in (*range(1, PLAN.num_turns + 1), PLAN.num_turns + 1, 2**40)
    ]

    assert [r.verdict for r in replies[: PLAN.num_turns]] == [Verdict.DONE] * (
        PLAN.num_turns
    )
    assert all(r.reason.startswith("GLD-B004") for r in replies[PLAN.num_turns :])
    assert site.ledger.totals()["people"].spent_epsilon <= STUDY.privacy.epsilon


def test_a_server_cannot_have_two_words_for_one_head_in_a_ledger(
    site_at: SiteAt, folder: Path
) -> None:
    server = Server()
    site = site_at(folder)
    first = server.ask(site, 1)
    true = server.heads.newest("a")
    assert true is not None
    server.heads.remember({"a": Head(1, "b" * 64)}, run_id="r")
    receipt = Receipt(1, sha256(first.update))
    request = replace(server.request(site, 2), grant_id=first.grant_id)

    for witness in (server.heads.newest("a"), replace(true, head_no=2)):
        reply = turn.take(site, replace(request, receipt=receipt, witness=witness))
        assert reply.verdict == Verdict.REFUSED_BY_POLICY
    good = replace(request, receipt=receipt, witness=true)
    assert turn.take(site, good).verdict == Verdict.DONE
    other_key = Heads(None, SigningKey.generate())
    other_key.remember({"a": Head(1, true.commitment)}, run_id="r")
    again = replace(good, witness=other_key.newest("a"))
    assert turn.take(site, again).verdict == Verdict.DONE

    kept = [e.content() for e in site.ledger.entries() if e.kind == "receipt"]
    assert [each["witness"]["server_key"] for each in kept] == [true.server_key]
