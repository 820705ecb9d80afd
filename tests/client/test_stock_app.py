"""The ClientApp that stock Flower loads: one message, one opening of the ledger."""

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Metadata, RecordDict
from flwr.app.message import make_message
from typer.testing import CliRunner

from guilder import cli
from guilder.consortium import found
from guilder_client import turn
from guilder_client.app import app
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_shared import wire
from guilder_shared.messages import Offer, TurnRequest, Verdict, pack
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.study import Study
from guilder_simulations.studies import path_of


@pytest.fixture
def study() -> Study:
    settings = ("training.rounds=2", "simulation.sites=2", "aggregation.min_sites=2")
    return Study.load(path_of("breast-cancer"), settings)


@pytest.fixture
def site_file(tmp_path: Path, study: Study) -> Path:
    consortium = found(tmp_path / "consortium", study, delta=1e-3 / 2)
    return consortium.site_file("site-1")


def context(**node_config: str) -> Context:
    return Context(1, 1, dict(node_config), RecordDict(), {})


def offer(study: Study) -> Any:
    asked = Offer("run-1", study.canonical(), accounting.solve(study))
    return message(wire.OFFER, wire.encode_offer(asked))


def message(kind: str, content: RecordDict) -> Any:
    metadata = Metadata(
        run_id=1,
        message_id="1",
        src_node_id=1,
        dst_node_id=2,
        reply_to_message_id="",
        group_id="",
        created_at=1e12,
        ttl=60.0,
        message_type=kind,
    )
    return make_message(metadata, content=content)


def test_an_offer_is_answered_and_the_ledger_is_free_for_the_next_process(
    study: Study, site_file: Path
) -> None:
    reply = app(offer(study), context(site=str(site_file)))

    answer = wire.decode_answer(reply.content)
    assert (answer.verdict, answer.site) == (Verdict.ACCEPTED, "site-1")
    with Site.open(SiteFile.load(site_file)).ledger as ledger:
        assert [grant.grant_id for grant in ledger.grants()] == [answer.grant_id]


def test_asked_again_by_another_process_the_same_grant_is_given(
    study: Study, site_file: Path
) -> None:
    asked, where = offer(study), context(site=str(site_file))

    answers = [wire.decode_answer(app(asked, where).content) for _ in range(2)]

    assert answers[0] == answers[1]


@pytest.mark.parametrize("config", [{}, {"site": "/nowhere/of-patient-4711.toml"}])
def test_what_goes_wrong_leaves_as_one_constant_word(
    study: Study, config: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeError) as caught:
        app(offer(study), context(**config))

    assert caught.value.args == ("turn-failed",)
    assert "GLD-" in caplog.text


def test_an_error_that_is_not_ours_is_logged_by_its_kind_alone(
    study: Study,
    site_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def burst(*_: object) -> None:
        raise ValueError("patient 4711")

    monkeypatch.setattr("guilder_client.policy.consider", burst)

    with pytest.raises(RuntimeError, match=r"^turn-failed$"):
        app(offer(study), context(site=str(site_file)))

    assert "ValueError" in caplog.text
    assert "4711" not in caplog.text


def turn_of(study: Study, grant_id: str) -> Any:
    asked = TurnRequest("run-1", grant_id, 1, 1, study.digest(), b"")
    model = wire.model_record(pack(registry.initial(study)))
    return message(wire.TURN, wire.encode_request(asked, {wire.MODEL: model}))


def pause(site_file: Path, *options: str) -> None:
    words = ["client", "pause", *options, "--site", str(site_file)]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output


def accepted(study: Study, site_file: Path) -> Any:
    """The message that asks for the first turn of an accepted study."""
    answer = wire.decode_answer(app(offer(study), context(site=str(site_file))).content)
    assert answer.verdict == Verdict.ACCEPTED, answer.reason
    return turn_of(study, answer.grant_id)


def turns_of(site_file: Path) -> dict[int, int]:
    """How often each turn was begun, by the ledger."""
    with Site.open(SiteFile.load(site_file)).ledger as ledger:
        (grant,) = ledger.grants()
        return {number: begun.attempts for number, begun in grant.turns.items()}


def test_a_paused_site_takes_no_turn_on_stock_flower_either(
    study: Study, site_file: Path
) -> None:
    where, asked = context(site=str(site_file)), accepted(study, site_file)
    pause(site_file)

    offered = wire.decode_answer(app(offer(study), where).content)
    held = app(asked, where).content

    assert offered.verdict == Verdict.BUSY
    assert wire.decode_reply(held).verdict == Verdict.BUSY
    assert wire.MODEL not in held.array_records
    assert turns_of(site_file) == {}  # no row was read, nothing charged


def test_what_is_computed_when_a_person_pauses_stays_here_on_stock_flower_too(
    study: Study, site_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, asked = context(site=str(site_file)), accepted(study, site_file)
    train = turn._train

    def meanwhile(*arguments: Any) -> Any:
        update = train(*arguments)
        pause(site_file, "--now")
        return update

    with monkeypatch.context() as patched:
        patched.setattr(turn, "_train", meanwhile)
        held = app(asked, where).content
    (sealed,) = (site_file.parent / "state" / "turns").iterdir()
    bytes_sealed = sealed.read_bytes()
    pause(site_file, "--end")
    later = app(asked, where).content

    assert wire.decode_reply(held).verdict == Verdict.BUSY
    assert wire.MODEL not in held.array_records
    assert wire.decode_reply(later).update == bytes_sealed
    assert turns_of(site_file) == {1: 1}
