"""kill -9 between any two durable writes: charged once, and one result ever leaves."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from guilder_client import policy, turn
from guilder_client.sealed import SealedTurns
from guilder_client.site import Site
from guilder_shared.journal import Journal
from guilder_shared.messages import (
    Close,
    Offer,
    Receipt,
    TurnRequest,
    Verdict,
    pack,
    sha256,
)
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
SiteAt = Callable[..., Site]
STUDY = Study.load(
    Path(__file__).parents[1] / "small.toml",
    ("training.rounds=4",),
)
PLAN = accounting.solve(STUDY)
MODEL = pack(registry.initial(STUDY))


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_process_that_dies(act: Callable[[], object]) -> None:
    """Run `act` in a copy of this process; fail unless it was killed in the middle."""
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            act()
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status
    assert os.WTERMSIG(status) == signal.SIGKILL


def killed_at_entry(kind: str, *, written: bool) -> None:
    """Die just before, or just after, an entry of this kind is durable."""
    append = Journal.append

    def dying(self: Journal, found: str, body: dict[str, object]) -> object:
        if found == kind and not written:
            die()
        entry = append(self, found, body)
        if found == kind:
            die()
        return entry

    Journal.append = dying  # type: ignore[method-assign,assignment]


def before_file() -> None:
    SealedTurns.write = die  # type: ignore[method-assign,assignment]


def before_rename(suffix: str) -> None:
    """Die before a file of this kind gets its name."""
    replace = Path.replace

    def dying(self: Path, target: Path) -> Path:
        if target.suffix == suffix:
            die()
        return replace(self, target)

    Path.replace = dying  # type: ignore[method-assign,assignment]


def before_training() -> None:
    turn._train = die  # type: ignore[assignment]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_text("x,y\n" + "0.2,0\n0.9,1\n" * 50)
    return tmp_path


def ask(site: Site, turn_no: int = 1) -> TurnRequest:
    answer = policy.consider(site, Offer("run", STUDY.canonical(), PLAN))
    assert answer.verdict == Verdict.ACCEPTED, answer
    return TurnRequest("run", answer.grant_id, turn_no, turn_no, STUDY.digest(), MODEL)


POINTS: dict[str, tuple[Callable[[], None], int]] = {
    "before the charge": (lambda: killed_at_entry("spend", written=False), 1),
    "after the charge": (lambda: killed_at_entry("spend", written=True), 2),
    "before the cohort has a key": (lambda: before_rename(".key"), 2),
    "before the rows are remembered": (lambda: before_rename(".json"), 2),
    "before the cohort": (lambda: killed_at_entry("cohort", written=False), 2),
    "after the cohort": (lambda: killed_at_entry("cohort", written=True), 2),
    "before training": (before_training, 2),
    "before the sealed file": (before_file, 2),
    "before the sealed file has its name": (lambda: before_rename(".safetensors"), 2),
    "before the seal": (lambda: killed_at_entry("seal", written=False), 2),
    "after the seal": (lambda: killed_at_entry("seal", written=True), 1),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_in_a_turn_it_is_charged_once_and_one_result_leaves(
    site_at: SiteAt, folder: Path, point: str
) -> None:
    arm, attempts = POINTS[point]
    site = site_at(folder)
    asked = ask(site)
    site.ledger.shut()

    def live() -> None:
        again = site_at(folder)
        arm()
        turn.take(again, asked)

    in_a_process_that_dies(live)
    site = site_at(folder)  # checks chain and signatures
    sealed = {
        t.sealed_sha256 for g in site.ledger.grants() for t in g.turns.values()
    } - {None}
    replies = [turn.take(site, asked) for _ in range(2)]

    assert replies[0].verdict == Verdict.DONE
    assert replies[1] == replies[0]
    (grant,) = site.ledger.grants()
    assert {n: t.attempts for n, t in grant.turns.items()} == {1: attempts}
    assert sealed <= {sha256(replies[0].update)}  # what was sealed is what leaves


@pytest.mark.parametrize("written", [False, True])
def test_killed_at_a_receipt_the_sealed_file_is_kept_until_it_is_told_again(
    site_at: SiteAt, folder: Path, written: bool
) -> None:
    site = site_at(folder)
    asked = ask(site)
    reply = turn.take(site, asked)
    site.ledger.shut()
    path = site.sealed.path(asked.grant_id, 1)
    following = replace(
        asked, turn_no=2, round_no=2, receipt=Receipt(1, sha256(reply.update))
    )

    def live() -> None:
        again = site_at(folder)
        killed_at_entry("receipt", written=written)
        turn.take(again, following)

    in_a_process_that_dies(live)
    kept = path.exists()
    site = site_at(folder)
    second = turn.take(site, following)

    assert kept
    assert not path.exists()
    assert second.verdict == Verdict.DONE
    (grant,) = site.ledger.grants()
    assert {n: t.attempts for n, t in grant.turns.items()} == {1: 1, 2: 1}


@pytest.mark.parametrize("written", [False, True])
def test_killed_at_the_end_of_a_study_it_can_be_ended_again(
    site_at: SiteAt, folder: Path, written: bool
) -> None:
    site = site_at(folder)
    grant_id = ask(site).grant_id
    site.ledger.shut()

    def live() -> None:
        again = site_at(folder)
        killed_at_entry("close", written=written)
        turn.close(again, Close("run", grant_id))

    in_a_process_that_dies(live)
    site = site_at(folder)
    turn.close(site, Close("run", grant_id))

    assert site.ledger.totals()["people"].left_epsilon == 6
    assert [e.kind for e in site.ledger.entries()].count("close") == 1


def test_killed_between_two_orders_the_rows_have_a_budget_and_then_both(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder)
    asked = ask(site)
    turn.take(site, asked)
    site.ledger.shut()

    def live() -> None:
        killed_at_entry("order", written=True)
        renamed(site_at, folder)

    in_a_process_that_dies(live)
    site = renamed(site_at, folder)

    assert list(site.ledger.totals()) == ["people", "patients"]
    assert site.ledger.totals()["patients"].spent_epsilon == 2
    assert turn.take(site, asked).verdict == Verdict.DONE


def renamed(site_at: SiteAt, folder: Path) -> Site:
    """The site after its engineer typed, and its officer signed, another name."""
    return site_at(
        folder, lambda text: text.replace("budget.people", "budget.patients")
    )


def test_a_full_disk_at_the_seal_lets_nothing_leave_until_the_client_starts_again(
    site_at: SiteAt, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_at(folder)
    asked = ask(site)
    insert, entries = Journal._insert, list[str]()

    def full(self: Journal, entry: object) -> None:
        import sqlite3

        entries.append(entry.kind)  # type: ignore[attr-defined]
        if entries[-1] == "seal":
            raise sqlite3.OperationalError("database or disk is full")
        insert(self, entry)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_insert", full)
        first = turn.take(site, asked)
    second = turn.take(site, asked)
    site.ledger.shut()
    third = turn.take(site_at(folder), asked)

    assert (first.verdict, first.update) == (Verdict.TURN_FAILED, b"")
    assert (second.verdict, second.update) == (Verdict.REFUSED_BY_POLICY, b"")
    assert third.verdict == Verdict.DONE
    assert entries == ["spend", "cohort", "seal"]
