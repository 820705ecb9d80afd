"""Every server that was sent a result is asked, over TLS, before the site spends."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from guilder_client import policy, turn, witnesses
from guilder_client.site import Site
from guilder_server.heads import Heads
from guilder_shared import reports, tls, witnessing
from guilder_shared.errors import BudgetSpent
from guilder_shared.identity import SigningKey
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
from guilder_shared.officer import Officer, put
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

SiteAt = Callable[..., Site]
Disk = Any  # the fixture `disk`; see conftest.py
NAME = "alder"
HERE = 1  # the port of the server that the site works for; nothing listens there
STUDY = Study.load(
    Path(__file__).parents[1] / "small.toml",
    (
        "privacy.delta=1e-07",
        "privacy.epsilon=1",
    ),
)
PLAN = accounting.solve(STUDY)
MODEL = pack(registry.initial(STUDY))


@dataclass
class Other:
    """Another server of the site's, with a memory of its own; it can go and come."""

    consortium: Any
    heads: Heads = field(
        default_factory=lambda: Heads(None, key=SigningKey.generate()),
    )
    hub: Any = None
    port: int = 0

    def serve(self) -> None:
        self.hub = self.consortium.hub(self.port, remembered=self.heads.word)
        self.port = self.hub.port

    @property
    def name(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@pytest.fixture
def other(consortium: Any) -> Other:
    server = Other(consortium)
    server.serve()
    return server


@pytest.fixture
def folder(tmp_path: Path, consortium: Any) -> Path:
    home = tmp_path / "site"
    home.mkdir()
    (home / "data.csv").write_text("x,y\n" + "0.2,0\n0.9,1\n" * 20)
    for name in ("site.key", "site.pem", "ca.pem"):
        shutil.copy(consortium.site(NAME) / name, home / name)
    return home


def offered(site: Site, run: str, witness: Head | None = None) -> Any:
    return policy.consider(site, Offer(run, STUDY.canonical(), PLAN, witness))


def taken(site: Site, run: str, turn_no: int, **told: Any) -> TurnReply:
    answer = offered(site, run, told.get("witness"))
    assert answer.verdict == Verdict.ACCEPTED, answer
    return turn.take(site, asked(run, answer.grant_id, turn_no, **told))


def asked(run: str, grant_id: str, turn_no: int, **told: Any) -> TurnRequest:
    turns = (turn_no, turn_no)
    return TurnRequest(run, grant_id, *turns, STUDY.digest(), MODEL, **told)


def served(site_at: SiteAt, folder: Path, other: Other, turn_no: int) -> TurnReply:
    """One turn for the other server, which remembers it."""
    site = site_at(folder, name=NAME, port=other.port)
    told = other.heads.newest(NAME)
    reply = taken(site, "theirs", turn_no, witness=told)
    assert reply.head is not None
    other.heads.remember({NAME: reply.head}, run_id="theirs")
    site.ledger.shut()
    return reply


def here(site_at: SiteAt, folder: Path, edit: Callable[[str], str] = str) -> Site:
    return site_at(folder, edit, name=NAME, port=HERE)


def officer(folder: Path) -> Officer:
    return Officer(SigningKey.load(folder / "officer.key"), site=NAME)


@pytest.fixture
def rolled_back(site_at: SiteAt, folder: Path, other: Other, disk: Disk) -> Path:
    """A site whose ledger lost the second of two turns for the other server."""
    served(site_at, folder, other, 1)
    copy = disk.copy(folder)
    served(site_at, folder, other, 2)
    disk.put_back(folder, copy)
    return folder


def test_a_ledger_that_another_server_knows_better_spends_nowhere(
    site_at: SiteAt,
    rolled_back: Path,
    other: Other,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = here(site_at, rolled_back)

    with caplog.at_level(logging.ERROR):
        answer = offered(site, "ours")

    assert answer.verdict == Verdict.REFUSED_BY_POLICY
    assert answer.reason.startswith("GLD-I080")
    assert str(other.port) not in answer.reason  # whom else it serves is its own affair
    assert [g.run_id for g in site.ledger.grants()] == ["theirs"]
    newest = other.heads.newest(NAME)
    assert newest is not None
    for part in (other.name, f"2:{newest.commitment}", "it holds 1", "acknowledge"):
        assert part in caplog.text


def test_once_the_officer_charged_what_is_lost_the_site_goes_on(
    site_at: SiteAt, rolled_back: Path, other: Other
) -> None:
    site = here(site_at, rolled_back)
    newest = other.heads.newest(NAME)
    assert newest is not None
    lost = officer(rolled_back).acknowledge(
        other.name, 2, newest.commitment, budget="people", epsilon=1.0, delta=1e-7
    )
    put(lost, rolled_back / "state" / "orders")

    assert taken(site, "ours", 1).verdict == Verdict.DONE
    assert site.ledger.totals()["people"].spent_epsilon == 3


def test_a_lost_ledger_is_missed_by_a_server_that_the_site_file_names(
    site_at: SiteAt, folder: Path, other: Other
) -> None:
    served(site_at, folder, other, 1)
    shutil.rmtree(folder / "state")
    lines = f'\n[witness.other]\nserver = "{other.name}"\n'

    site = here(site_at, folder, lambda text: text + lines)

    assert "GLD-I080" in offered(site, "ours").reason


def test_while_another_server_is_silent_no_study_begins_and_a_begun_one_waits(
    site_at: SiteAt, folder: Path, other: Other, caplog: pytest.LogCaptureFixture
) -> None:
    served(site_at, folder, other, 1)
    site = here(site_at, folder)
    grant_id = offered(site, "ours").grant_id
    site.ledger.shut()
    other.hub.stop()
    site = here(site_at, folder)  # restarted in mid-study

    with caplog.at_level(logging.ERROR):
        refused = offered(site, "more")
        waiting = turn.take(site, asked("ours", grant_id, 1))

    assert refused.verdict == Verdict.REFUSED_BY_POLICY
    assert refused.reason.startswith("GLD-S050")
    assert str(other.port) not in refused.reason
    assert waiting.verdict == Verdict.BUSY
    assert str(other.port) not in waiting.reason
    assert [t for g in site.ledger.grants()[1:] for t in g.turns] == []
    assert caplog.text.count(f"{other.name} was not heard: ConnectError") == 1
    other.serve()
    assert turn.take(site, asked("ours", grant_id, 1)).verdict == Verdict.DONE


def test_the_officer_lets_the_site_go_on_without_a_server_that_is_gone(
    site_at: SiteAt, folder: Path, other: Other
) -> None:
    served(site_at, folder, other, 1)
    other.hub.stop()
    site = here(site_at, folder)
    assert "GLD-S050" in offered(site, "ours").reason
    engineer = Officer(SigningKey.generate(), site=NAME)
    put(engineer.excuse(other.name), folder / "state" / "orders")
    assert "GLD-S050" in offered(site, "ours").reason

    excuse = officer(folder).excuse(other.name, days=2)
    put(excuse, folder / "state" / "orders")

    assert offered(site, "ours").verdict == Verdict.ACCEPTED
    put(officer(folder).revoke(excuse.order_id), folder / "state" / "orders")
    assert "GLD-S050" in offered(site, "more").reason


def test_after_a_lost_connection_the_next_turn_asks_anew(
    site_at: SiteAt, folder: Path, other: Other
) -> None:
    served(site_at, folder, other, 1)
    site = here(site_at, folder)
    grant_id = offered(site, "ours").grant_id
    other.hub.stop()
    assert turn.take(site, asked("ours", grant_id, 1)).verdict == Verdict.DONE
    assert site.witnesses is not None

    site.witnesses.forget()  # what the client does whenever it comes online

    assert turn.take(site, asked("ours", grant_id, 2)).verdict == Verdict.BUSY


def test_a_server_that_lies_about_a_ledger_can_be_excused(
    site_at: SiteAt, folder: Path, other: Other
) -> None:
    served(site_at, folder, other, 1)
    other.heads.remember({NAME: Head(2, "a" * 64)}, run_id="made up")
    site = here(site_at, folder)

    assert "GLD-I080" in offered(site, "ours").reason
    put(officer(folder).excuse(other.name), folder / "state" / "orders")
    assert offered(site, "ours").verdict == Verdict.ACCEPTED


@pytest.mark.attack("a server", "two words about one state of a ledger", "GLD-I081")
def test_two_words_about_one_number_stop_the_site_and_both_are_signed(
    site_at: SiteAt, folder: Path, other: Other
) -> None:
    first = served(site_at, folder, other, 1)
    true = other.heads.newest(NAME)
    other.heads.remember({NAME: Head(1, "b" * 64)}, run_id="made up")
    false = other.heads.newest(NAME)
    site = here(site_at, folder)

    assert "GLD-I081" in offered(site, "ours").reason

    assert first.head is not None
    for word in (true, false):  # what the site can show to anybody
        assert word is not None
        assert witnessing.is_signed(witnessing.as_body(word) or {}, NAME)
    assert true != false


def test_a_server_that_forgot_what_it_signed_for_is_told_in_the_sites_log(
    site_at: SiteAt, folder: Path, other: Other, caplog: pytest.LogCaptureFixture
) -> None:
    first = served(site_at, folder, other, 1)
    site = site_at(folder, name=NAME, port=other.port)
    receipt = Receipt(1, sha256(first.update))
    told = {"witness": other.heads.newest(NAME), "receipt": receipt}
    assert taken(site, "theirs", 2, **told).verdict == Verdict.DONE
    site.ledger.shut()
    other.heads = Heads(None, key=SigningKey.generate())  # heads.json was deleted
    other.hub.stop()
    other.serve()
    site = here(site_at, folder)

    with caplog.at_level(logging.ERROR):
        answer = offered(site, "ours")

    assert answer.verdict == Verdict.ACCEPTED  # nothing is missing in the ledger
    assert f"GLD-I104 {other.name} signed for head 1" in caplog.text
    (lost,) = reports.build(site.ledger)["silences"]  # and in every later report
    assert lost["forgot"][0]["remembered"] == 0


def test_a_server_tells_each_site_of_its_own_ledger_alone(
    consortium: Any, other: Other
) -> None:
    other.heads.remember({NAME: Head(3, "c" * 64)}, run_id="r")

    def question(name: str) -> witnesses.Question:
        keys = tls.KeyFiles.in_folder(consortium.site(name), "site")
        return witnesses.Question(other.name, other.name, keys)

    assert witnesses.ask(question(NAME)) == other.heads.newest(NAME)
    assert witnesses.ask(question("birch")) is None


def test_a_server_that_moved_is_asked_where_it_is_now(
    site_at: SiteAt, folder: Path, other: Other
) -> None:
    served(site_at, folder, other, 1)
    before = other.name
    other.hub.stop()
    other.port = 0
    other.serve()
    lines = f'\n[witness.other]\nserver = "{other.name}"\nknown_as = "{before}"\n'

    site = here(site_at, folder, lambda text: text + lines)

    assert offered(site, "ours").verdict == Verdict.ACCEPTED


def test_the_sites_own_server_under_a_new_address_is_told_by_its_old_one(
    site_at: SiteAt, folder: Path, other: Other
) -> None:
    served(site_at, folder, other, 1)
    before, newest = other.name, other.heads.newest(NAME)

    def moved(text: str) -> str:
        return text.replace("state_dir", f'known_as = "{before}"\nstate_dir', 1)

    site = here(site_at, folder)
    assert "GLD-I080" in offered(site, "theirs", newest).reason
    site.ledger.shut()
    site = here(site_at, folder, moved)

    reply = taken(site, "theirs", 2, witness=newest)

    assert reply.head is not None
    assert reply.head.head_no == 2
    assert len(site.ledger.grants()) == 1  # the same run, charged once


@pytest.mark.attack("a server", "a turn under another server's grant", "GLD-S007")
def test_a_turn_under_another_servers_grant_is_refused(
    site_at: SiteAt, folder: Path, other: Other
) -> None:
    served(site_at, folder, other, 1)
    site = here(site_at, folder)
    (grant,) = site.ledger.grants()

    reply = turn.take(site, asked("theirs", grant.grant_id, 2))

    assert reply.reason.startswith("GLD-S007")
    assert list(site.ledger.grants()[0].turns) == [1]


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{", b'{"head_no": 1}', b"x" * 5000, b"null"],
)
def test_what_is_no_answer_is_not_taken_for_one(answer: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of them is "not heard"
        witnessing.read(answer)


def test_an_answer_is_read_as_it_was_written() -> None:
    head = witnessing.signed(Head(4, "d" * 64), NAME, SigningKey.generate())

    assert witnessing.read(witnessing.write(head)) == head
    assert witnessing.read(witnessing.write(None)) is None


def test_a_refused_excuse_says_whose_signature_is_missing(folder: Path) -> None:
    forged = Officer(SigningKey.generate(), site=NAME).excuse("https://b", days=1)

    assert forged.expires is not None
    assert not forged.is_signed_by("0" * 64)
    with pytest.raises(BudgetSpent):
        type(forged).of({**forged.content, "server": ""}, forged.signature)
