"""One site's turn: charged before rows are read, the same bytes when asked again."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from guilder_client import policy, terms, turn
from guilder_client.data.source import LeaveOut, open_source
from guilder_client.sealed import SealedTurns
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_server.init import SITE_TOML
from guilder_shared.identity import SigningKey
from guilder_shared.messages import (
    Answer,
    Close,
    Offer,
    Plan,
    Receipt,
    TurnReply,
    TurnRequest,
    Verdict,
    pack,
    sha256,
    unpack,
)
from guilder_shared.models import registry
from guilder_shared.officer import Officer, make_key
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Data, Study
from guilder_shared.tasks import Examples

STUDY = Study.load(
    Path(__file__).parents[1] / "small.toml",
    (
        "aggregation.min_sites=2",
        "aggregation.round_deadline_s=3",
        "training.rounds=4",
    ),
)
PLAN = accounting.solve(STUDY)
MODEL = pack(registry.initial(STUDY))


def nothing(_site: Site) -> None:
    """What happens between the charge and the rows, unless a test says otherwise."""


@dataclass
class Watched:
    """A real source that tells when rows are read."""

    inner: object
    site: list[Site] = field(default_factory=list)
    reads: int = 0
    on_read: Callable[[Site], None] = nothing

    @property
    def public_size(self) -> int:
        return self.inner.public_size  # type: ignore[attr-defined, no-any-return]

    @property
    def public_persons(self) -> int | None:
        return self.inner.public_persons  # type: ignore[attr-defined, no-any-return]

    def check(self, data: Data) -> None:
        self.inner.check(data)  # type: ignore[attr-defined]

    def read(self, data: Data, leave_out: LeaveOut | None = None) -> Examples:
        self.reads += 1
        self.on_read(self.site[0])
        return self.inner.read(data, leave_out)  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "data.csv").write_text("x,y\n" + "0.2,0\n0.9,1\n" * 50)
    (tmp_path / "site.toml").write_text(
        SITE_TOML.format(
            name="a",
            host="127.0.0.1",
            port=1,
            dataset="d",
            kind="csv",
            path="data.csv",
            public_size=100,
            epsilon=6.0,
            delta=1e-5,
            smallest_cohort=2,
            unprotected="false",
        )
    )
    opened = open_site(tmp_path)
    yield opened
    opened.ledger.shut()


def open_site(folder: Path) -> Site:
    settings = SiteFile.load(folder / "site.toml")
    key_file = folder / "signing.key"
    if not key_file.exists():
        SigningKey.generate().save(key_file)
    if not (folder / "officer.pub").exists():
        make_key(folder)
    officer = Officer(SigningKey.load(folder / "officer.key"), site="a")
    watched = Watched(open_source(settings.data["d"]))
    site = Site(
        name="a",
        settings=settings,
        ledger=Ledger.open(
            folder / "state" / "ledger.db",
            SigningKey.load(key_file),
            site="a",
            officer=officer.public_hex,
            orders=terms.sign(settings, officer, days=1),
        ),
        sealed=SealedTurns(folder / "state" / "turns"),
        sources={"d": watched},
        paced=False,
    )
    watched.site.append(site)
    return site


def offer(study: Study = STUDY, plan: Plan = PLAN, run_id: str = "run-1") -> Offer:
    return Offer(run_id, study.canonical(), plan)


def accepted(site: Site) -> Answer:
    answer = policy.consider(site, offer())
    assert answer.verdict == Verdict.ACCEPTED, answer
    return answer


def request(site: Site, turn_no: int = 1, model: bytes = MODEL) -> TurnRequest:
    grant_id = accepted(site).grant_id
    return TurnRequest("run-1", grant_id, turn_no, turn_no, STUDY.digest(), model)


def charges(site: Site) -> dict[int, int]:
    """Turn number → how often it was started."""
    (grant,) = site.ledger.grants()
    return {number: t.attempts for number, t in grant.turns.items()}


def reads(site: Site) -> int:
    source = site.sources["d"]
    assert isinstance(source, Watched)
    return source.reads


def on_read(site: Site, action: Callable[[Site], None]) -> None:
    source = site.sources["d"]
    assert isinstance(source, Watched)
    source.on_read = action


def test_a_turn_gives_an_update_of_the_models_shapes(site: Site) -> None:
    reply = turn.take(site, request(site))

    assert reply.verdict == Verdict.DONE
    update = unpack(reply.update, registry.shapes(STUDY))
    assert all(w.any() for w in update.values())


def test_the_charge_is_durable_before_the_first_row_is_read(site: Site) -> None:
    found: list[dict[int, int]] = []

    def look(reading: Site) -> None:
        key = SigningKey.load(reading.settings.keys.signing_key)
        path = reading.settings.site.state_dir / "ledger.db"
        with Ledger.read(path, key) as ledger:  # what a second process sees
            found.append({n: t.attempts for n, t in ledger.grants()[0].turns.items()})

    on_read(site, look)
    turn.take(site, request(site))

    assert found == [{1: 1}]


def test_asked_again_it_gives_the_same_bytes_and_charges_nothing(site: Site) -> None:
    asked = request(site)
    first = turn.take(site, asked)
    charged = charges(site)

    again = turn.take(site, replace(asked, receipt=None))

    assert again == first
    assert charges(site) == charged == {1: 1}


def test_asked_again_after_a_restart_it_gives_the_same_bytes(
    site: Site, tmp_path: Path
) -> None:
    asked = request(site)
    first = turn.take(site, asked)
    site.ledger.shut()

    reopened = open_site(tmp_path)
    again = turn.take(reopened, asked)
    num_reads = reads(reopened)
    reopened.ledger.shut()

    assert again == first
    assert num_reads == 0


@pytest.mark.attack("a server", "a different model for one turn", "GLD-I008")
def test_the_same_turn_with_another_model_is_refused(site: Site) -> None:
    asked = request(site)
    turn.take(site, asked)
    other = pack({n: w + 1 for n, w in registry.initial(STUDY).items()})

    reply = turn.take(site, replace(asked, model=other))

    assert reply.verdict == Verdict.REFUSED_BY_POLICY
    assert "GLD-I008" in reply.reason
    assert reply.update == b""
    assert charges(site) == {1: 1}


def test_killed_after_the_charge_the_turn_is_trained_under_the_same_charge(
    site: Site,
) -> None:
    asked = request(site)

    def killed(_site: Site) -> None:
        raise KeyboardInterrupt

    on_read(site, killed)
    with pytest.raises(KeyboardInterrupt):
        turn.take(site, asked)
    on_read(site, nothing)
    reply = turn.take(site, asked)

    assert reply.verdict == Verdict.DONE
    assert charges(site) == {1: 2}
    (grant,) = site.ledger.grants()
    assert len(grant.turns) == 1


def test_killed_between_the_sealed_file_and_its_row_one_result_ever_leaves(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(site)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "seal", killed)
        with pytest.raises(KeyboardInterrupt):
            turn.take(site, asked)
    lost = site.sealed.path(asked.grant_id, 1).read_bytes()
    reply = turn.take(site, asked)

    assert reply.update != lost  # fresh noise, and the lost bytes were never sent
    assert turn.take(site, asked) == reply


def test_rows_of_nan_and_text_do_not_stop_a_turn(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x,y\nnan,1\ninf,0\n0.5,\n,1\n1e999,0\n")

    reply = turn.take(site, request(site))

    assert reply.verdict == Verdict.DONE
    update = unpack(reply.update, registry.shapes(STUDY))
    assert all(np.isfinite(w).all() for w in update.values())


def test_a_turn_that_fails_says_only_that_and_only_at_the_deadline(
    site: Site, tmp_path: Path
) -> None:
    asked = request(site)
    (tmp_path / "data.csv").unlink()
    site.paced = True
    start = time.monotonic()

    reply = turn.take(site, asked)

    deadline_s = STUDY.aggregation.round_deadline_s - turn.DEADLINE_MARGIN_S
    assert reply == TurnReply(Verdict.TURN_FAILED, asked.grant_id, 1, 1)
    assert time.monotonic() - start >= deadline_s
    assert charges(site) == {1: 1}


def test_a_turn_that_fails_four_times_is_given_up(site: Site, tmp_path: Path) -> None:
    asked = request(site)
    (tmp_path / "data.csv").unlink()

    verdicts = {turn.take(site, asked).verdict for _ in range(6)}

    assert verdicts == {Verdict.TURN_FAILED}
    assert charges(site) == {1: 4}


def test_a_reply_leaves_at_a_multiple_of_the_quantum(site: Site) -> None:
    asked = request(site)
    site.paced = True
    start = time.monotonic()

    turn.take(site, asked)

    assert time.monotonic() - start >= STUDY.aggregation.reply_quantum_s


def test_a_receipt_for_the_sealed_bytes_lets_the_file_go(site: Site) -> None:
    first = request(site)
    reply = turn.take(site, first)
    path = site.sealed.path(first.grant_id, 1)
    assert path.exists()

    receipt = Receipt(1, sha256(reply.update))
    turn.take(site, replace(request(site, turn_no=2), receipt=receipt))

    assert not path.exists()


def test_a_receipt_for_other_bytes_is_not_believed(site: Site) -> None:
    first = request(site)
    turn.take(site, first)

    turn.take(site, replace(request(site, turn_no=2), receipt=Receipt(1, "0" * 64)))

    assert site.sealed.path(first.grant_id, 1).exists()


def test_a_changed_sealed_file_is_never_sent(site: Site) -> None:
    asked = request(site)
    turn.take(site, asked)
    path = site.sealed.path(asked.grant_id, 1)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")

    reply = turn.take(site, asked)

    assert (reply.verdict, reply.update) == (Verdict.TURN_FAILED, b"")


@pytest.mark.parametrize(
    "change",
    [
        {"grant_id": "0" * 32},
        {"study_digest": "0" * 64},
        {"run_id": "another"},
        {"turn_no": 6},
        {"turn_no": 0},
        {"model": b"\x00" * 100},
        {"model": pack({"w": np.zeros(3, np.float32)})},
    ],
)
def test_a_turn_that_is_not_ours_is_refused_unread_and_uncharged(
    site: Site, change: dict[str, object]
) -> None:
    reply = turn.take(site, replace(request(site), **change))  # type: ignore[arg-type]

    assert reply.verdict in (Verdict.REFUSED_BY_POLICY, Verdict.REFUSED_BY_BUDGET)
    assert reads(site) == 0
    assert charges(site) == {}


def test_a_closed_grant_takes_no_further_turn(site: Site) -> None:
    asked = request(site)
    turn.close(site, Close("run-1", asked.grant_id))

    reply = turn.take(site, asked)

    assert reply.verdict == Verdict.REFUSED_BY_POLICY
    assert charges(site) == {}
