"""SCAFFOLD at a site: which variate a turn begins from, and what leaves with it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guilder_client import policy, turn
from guilder_client.site import Site
from guilder_shared.compression import unpack_update
from guilder_shared.messages import (
    Close,
    Offer,
    Receipt,
    TurnReply,
    TurnRequest,
    Verdict,
    Weights,
    pack,
    sha256,
    unpack,
)
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

STUDY = Study.load(
    Path(__file__).parents[1] / "small.toml",
    (
        "aggregation.compression=int8",
        "aggregation.min_sites=2",
        "aggregation.round_deadline_s=3",
        "aggregation.spare_turns=2",
        "aggregation.strategy=scaffold",
        "training.learning_rate=0.5",
        "training.local_steps=2",
        "training.rounds=6",
    ),
)
SHAPES = registry.shapes(STUDY)
PLAN = accounting.solve(STUDY)
CONTROL = {n: np.full(shape, 0.25, np.float32) for n, shape in SHAPES.items()}
MOVED = 2 * 0.5  # steps x learning rate


@pytest.fixture
def site(tmp_path: Path, site_at: Callable[..., Site]) -> Site:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "data.csv").write_text("x,y\n" + "0.2,0\n0.9,1\n" * 50)
    return site_at(tmp_path / "a")


def request(site: Site, turn_no: int = 1) -> TurnRequest:
    answer = policy.consider(site, Offer("run-1", STUDY.canonical(), PLAN))
    assert answer.verdict == Verdict.ACCEPTED, answer
    return TurnRequest(
        "run-1",
        answer.grant_id,
        turn_no,
        turn_no,
        STUDY.digest(),
        pack(registry.initial(STUDY)),
        control=pack(CONTROL),
    )


def after(asked: TurnRequest, reply: TurnReply) -> TurnRequest:
    """The next turn's request, once this reply was committed."""
    receipt = Receipt(asked.turn_no, sha256(reply.update))
    following = asked.turn_no + 1
    return replace(
        asked,
        turn_no=following,
        round_no=following,
        receipt=receipt,
        control_base=asked.turn_no,
    )


def moved(reply: TurnReply) -> Weights:
    assert reply.verdict == Verdict.DONE, reply
    return unpack_update(reply.update, SHAPES, "int8")


def kept(site: Site, asked: TurnRequest) -> Weights:
    """The variate that the site kept with a turn."""
    folder = site.sealed.folder / "variates"
    data = (folder / f"{asked.grant_id}-{asked.turn_no:05d}.safetensors").read_bytes()
    return unpack(data[64:], SHAPES)


def num_charged(site: Site) -> int:
    (grant,) = site.ledger.grants()
    return len(grant.turns)


def test_a_variate_is_the_mean_gradient_read_off_what_left(site: Site) -> None:
    first = request(site)
    update = moved(turn.take(site, first))

    for name, variate in kept(site, first).items():
        assert variate == pytest.approx(-0.25 - update[name] / MOVED, abs=1e-6)


def test_the_next_turn_begins_from_the_variate_of_the_committed_one(site: Site) -> None:
    first = request(site)
    reply = turn.take(site, first)
    second = after(first, reply)
    update = moved(turn.take(site, second))

    own = kept(site, first)
    for name, variate in kept(site, second).items():
        expected = own[name] - 0.25 - update[name] / MOVED
        assert variate == pytest.approx(expected, abs=1e-6)


def test_a_turn_that_was_never_committed_leaves_no_trace(site: Site) -> None:
    first = request(site)
    reply = turn.take(site, first)
    lost = after(first, reply)
    turn.take(site, lost)  # the server closes the round without it

    third = replace(lost, turn_no=3, round_no=3)
    update = moved(turn.take(site, third))

    own = kept(site, first)
    for name, variate in kept(site, third).items():
        expected = own[name] - 0.25 - update[name] / MOVED
        assert variate == pytest.approx(expected, abs=1e-6)


def test_where_variates_begin_anew_the_old_one_counts_nothing(site: Site) -> None:
    first = request(site)
    second = replace(after(first, turn.take(site, first)), control_base=0)

    update = moved(turn.take(site, second))

    for name, variate in kept(site, second).items():
        assert variate == pytest.approx(-0.25 - update[name] / MOVED, abs=1e-6)


def test_asked_again_it_gives_the_same_bytes_and_variate(site: Site) -> None:
    asked = request(site)
    first, before = turn.take(site, asked), kept(site, asked)

    again = turn.take(site, asked)

    assert again == first
    assert pack(kept(site, asked)) == pack(before)
    assert num_charged(site) == 1


def test_a_second_control_for_the_same_turn_is_refused(site: Site) -> None:
    asked = request(site)
    turn.take(site, asked)
    other = {n: w + 1 for n, w in CONTROL.items()}

    reply = turn.take(site, replace(asked, control=pack(other)))

    assert reply.verdict == Verdict.REFUSED_BY_POLICY
    assert reply.update == b""


@pytest.mark.parametrize("loss", ["removed", "cut", "of other bytes"])
def test_without_the_variate_nothing_is_charged_and_nothing_read(
    site: Site, loss: str
) -> None:
    first = request(site)
    second = after(first, turn.take(site, first))
    (path,) = (site.sealed.folder / "variates").glob("*")
    if loss == "removed":
        path.unlink()
    elif loss == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    else:
        second = replace(second, receipt=Receipt(1, "0" * 64))

    reply = turn.take(site, second)

    assert reply.verdict == Verdict.REFUSED_BY_POLICY
    assert reply.reason.startswith(("GLD-I110", "GLD-I040"))
    assert num_charged(site) == 1


def test_a_request_without_the_control_is_refused_before_the_charge(site: Site) -> None:
    reply = turn.take(site, replace(request(site), control=b""))

    assert reply.verdict == Verdict.REFUSED_BY_POLICY
    assert reply.reason.startswith("GLD-I111")
    assert num_charged(site) == 0


def test_variates_that_cannot_count_any_more_are_removed(site: Site) -> None:
    folder = site.sealed.folder / "variates"
    asked = request(site)
    for _ in range(3):
        asked = after(asked, turn.take(site, asked))
    turn.take(site, asked)

    assert len(list(folder.iterdir())) == 2  # that of the base, and of this turn
    turn.close(site, Close("run-1", asked.grant_id, asked.receipt))
    assert list(folder.iterdir()) == []


def test_a_variate_half_written_when_the_client_was_killed_stops_no_turn(
    site: Site,
) -> None:
    first = request(site)
    second = after(first, turn.take(site, first))
    folder = site.sealed.folder / "variates"
    torn = folder / f"{first.grant_id}-00002.safetensors.part"
    torn.write_bytes(b"half")

    assert turn.take(site, second).verdict == Verdict.DONE
    third = after(second, turn.take(site, second))
    torn.write_bytes(b"half")  # of the second, which the server had in time
    assert turn.take(site, third).verdict == Verdict.DONE
    assert not torn.exists()
