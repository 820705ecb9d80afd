"""What sites measured of the last model: summed once, whatever stops the server."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from guilder_server import rounds
from guilder_server.grid import Sites
from guilder_server.runstore import RunStore
from guilder_shared import wire
from guilder_shared.messages import (
    MEASURED,
    MEASURED_BESIDE,
    Answer,
    Plan,
    TurnReply,
    TurnRequest,
    Verdict,
    pack,
    unpack,
)
from guilder_shared.models import registry
from guilder_shared.study import Study
from guilder_shared.training import charged
from guilder_simulations.inprocess import InProcessGrid

PLAN = Plan(1.0, 6, 1e-3, 2.0)
LAST = 4  # three rounds, and one to measure


NAMES = ("a", "b", "c")
Behave = Callable[[str, TurnRequest], TurnReply]


@pytest.fixture
def study() -> Study:
    column = {"kind": "number", "low": 0.0, "high": 1.0}
    training = {"rounds": 3, "local_steps": 1, "sample_rate": 1.0, "learning_rate": 1.0}
    privacy = {"unit": "record", "mechanism": "site-noise", "epsilon": 1.0}
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "t", "recipe": "tabular-classification", "purpose": "t"},
            "data": {"kind": "table", "dataset": "d", "target": "y"}
            | {"columns": {"x": column}},
            "model": {"name": "logistic"},
            "training": training,
            "privacy": privacy | {"delta": 1e-5, "clip_norm": 1.0},
            "aggregation": {"min_sites": 3, "round_deadline_s": 0.5},
            "evaluation": {"on": "charged", "rows": 0.3, "share": 1.0},
        }
    )


def app_of(behave: Behave) -> ClientApp:
    app = ClientApp()

    @app.query("offer")
    def offer(message: Message, context: Context) -> Message:
        name = str(context.node_config["site"])
        answer = Answer(Verdict.ACCEPTED, name, f"grant-{name}", 1000)
        return Message(wire.encode_answer(answer), reply_to=message)

    @app.query("close")
    def close(message: Message, context: Context) -> Message:
        done = Answer(Verdict.DONE, str(context.node_config["site"]))
        return Message(wire.encode_answer(done), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        name = str(context.node_config["site"])
        reply = behave(name, wire.decode_request(message.content))
        return Message(wire.encode_reply(reply), reply_to=message)

    return app


def honest(study: Study, request: TurnRequest) -> TurnReply:
    """Nothing moves."""
    shapes = registry.shapes(study)
    update = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    asked = (request.grant_id, request.turn_no, request.round_no)
    return TurnReply(Verdict.DONE, *asked, pack(update))


def vector(study: Study, right: float, wrong: float) -> np.ndarray:
    widths = charged.widths(study)
    found = np.zeros(sum(widths.values()), np.float32)
    found[:3] = right, wrong, 0.25 * (right + wrong)
    found[3 + 2] = wrong  # of class 0, low scores
    found[3 + 16 + 9] = right  # of class 1, high ones
    return found


def counting(name: str, request: TurnRequest, study: Study) -> TurnReply:
    """Site a has 90 of 100 right, b 180 of 200, c 30 of 100."""
    right, num = {"a": (90, 100), "b": (180, 200), "c": (30, 100)}[name]
    answer = {MEASURED: vector(study, right, num - right)}
    asked = (request.grant_id, request.turn_no, request.round_no)
    return TurnReply(Verdict.DONE, *asked, pack(answer))


def run(folder: Path, study: Study, behave: Behave) -> dict[str, float]:
    if RunStore.begun(folder):
        store = RunStore.open(folder)
    else:
        facts = {"run_id": "r1", "plan": PLAN.facts()}
        store = RunStore.create(folder, study, facts)
    try:
        task = rounds.Run(study, store.plan, store, lambda _weights: {})
        rounds.run(task, Sites(InProcessGrid(app_of(behave), NAMES)))
        return store.metrics()
    finally:
        store.close()


def behaving(study: Study, seen: list[tuple[str, int]] | None = None) -> Behave:
    def behave(name: str, request: TurnRequest) -> TurnReply:
        if request.round_no < LAST:
            return honest(study, request)
        if seen is not None:
            seen.append((name, request.turn_no))
        return counting(name, request, study)

    return behave


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_the_sum_of_all_sites_is_read_off_after_the_last_round(
    tmp_path: Path, study: Study
) -> None:
    found = run(tmp_path, study, behaving(study))

    assert found["accuracy"] == pytest.approx(300 / 400)
    assert found["loss"] == pytest.approx(0.25)
    assert found["auc"] == 1.0
    assert {(line["round"], line["name"]) for line in lines(tmp_path)} == {
        (3, "accuracy"),
        (3, "loss"),
        (3, "auc"),
    }


def test_killed_before_the_sum_is_durable_the_same_turns_are_asked_again(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, study, behaving(study, seen))
    found = run(tmp_path, study, behaving(study, seen))
    again = run(tmp_path, study, behaving(study, seen))

    assert sorted(seen) == sorted([(name, LAST) for name in NAMES] * 2)
    assert found == again
    assert found["accuracy"] == pytest.approx(300 / 400)
    assert len(lines(tmp_path)) == 3


@pytest.mark.parametrize("number", [np.nan, np.inf, 2.0**33, None])
def test_a_site_whose_answer_no_count_can_be_is_out_and_the_others_are_summed(
    tmp_path: Path, study: Study, number: float | None
) -> None:
    two_suffice = study.aggregation.model_copy(update={"min_sites": 2})
    study = study.model_copy(update={"aggregation": two_suffice})

    def behave(name: str, request: TurnRequest) -> TurnReply:
        if request.round_no < LAST or name != "b":
            return behaving(study)(name, request)
        found = vector(study, 1, 1)
        if number is None:
            found = found[:-1]  # of another shape
        else:
            found[4] = number
        asked = (request.grant_id, request.turn_no, request.round_no)
        return TurnReply(Verdict.DONE, *asked, pack({MEASURED: found}))

    found = run(tmp_path, study, behave)

    assert found["accuracy"] == pytest.approx(120 / 200)
    told = (tmp_path / "events.jsonl").read_text()
    assert '"kind": "site-excluded", "site": "b"' in told


def every_round(study: Study) -> Study:
    changed = study.evaluation.model_copy(update={"every": 1})
    return study.model_copy(update={"evaluation": changed})


def by_round(study: Study, wrong: str = "") -> Behave:
    """In round 2 three in ten are right, later nine; `wrong` sends no count."""

    def behave(name: str, request: TurnRequest) -> TurnReply:
        reply = honest(study, request)
        if request.round_no == 1:
            return reply
        right = 30 if request.round_no == 2 else 90
        found = vector(study, right, 100 - right)
        if name == wrong:
            found[4] = 2.0**33
        if request.round_no == LAST:
            return replace(reply, update=pack({MEASURED: found}))
        update = unpack(reply.update, registry.shapes(study))
        return replace(reply, update=pack({**update, MEASURED_BESIDE: found}))

    return behave


def accuracies(folder: Path) -> list[tuple[int, float]]:
    found = [line for line in lines(folder) if line["name"] == "accuracy"]
    return [(line["round"], round(line["value"], 4)) for line in found]


def test_models_between_rounds_are_measured_by_the_turns_that_begin_with_them(
    tmp_path: Path, study: Study
) -> None:
    study = every_round(study)

    found = run(tmp_path, study, by_round(study))

    assert accuracies(tmp_path) == [(1, 0.3), (2, 0.9), (3, 0.9)]
    assert found["accuracy"] == pytest.approx(0.9)
    store = RunStore.open(tmp_path)
    told = [e for e in store.events() if e["kind"] in ("round", "measured")]
    receipts = store.receipts()
    store.close()
    assert [(e["kind"], e["round"]) for e in told] == [
        ("round", 1),
        ("measured", 1),
        ("round", 2),
        ("measured", 2),
        ("round", 3),
        ("measured", 3),
    ]
    assert {r.turn_no for r in receipts.values()} == {LAST}


@pytest.mark.parametrize("at", [1, 2, 3])
def test_killed_before_a_measured_round_is_durable_it_is_measured_once(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    study, real = every_round(study), RunStore.commit

    def killed(store: RunStore, round_no: int, *given: Any, **named: Any) -> None:
        if round_no == at:
            raise KeyboardInterrupt
        real(store, round_no, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, study, by_round(study))
    run(tmp_path, study, by_round(study))
    run(tmp_path, study, by_round(study))

    assert accuracies(tmp_path) == [(1, 0.3), (2, 0.9), (3, 0.9)]


def test_lines_are_the_same_when_they_are_made_anew_from_the_database(
    tmp_path: Path, study: Study
) -> None:
    study = every_round(study)
    run(tmp_path, study, by_round(study))
    before = (tmp_path / "metrics.jsonl").read_text()

    (tmp_path / "metrics.jsonl").unlink()
    store = RunStore.open(tmp_path)
    store.enter("running")
    store.close()

    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_vector_beside_an_update_that_no_count_can_be_puts_its_site_out(
    tmp_path: Path, study: Study
) -> None:
    two = study.aggregation.model_copy(update={"min_sites": 2})
    study = every_round(study.model_copy(update={"aggregation": two}))

    run(tmp_path, study, by_round(study, wrong="b"))

    assert accuracies(tmp_path) == [(1, 0.3), (2, 0.9), (3, 0.9)]
    told = (tmp_path / "events.jsonl").read_text()
    assert '"kind": "site-excluded", "site": "b"' in told
