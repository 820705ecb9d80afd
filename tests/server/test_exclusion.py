"""Sites that lie are out of the run, on the in-process Grid with real apps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from guilder_server import rounds
from guilder_server.grid import Sites
from guilder_server.runstore import RunStore
from guilder_shared import wire
from guilder_shared.errors import (
    IntegrityError,
)
from guilder_shared.messages import (
    Answer,
    Plan,
    TurnReply,
    TurnRequest,
    Verdict,
    Weights,
    pack,
    unpack,
)
from guilder_shared.models import registry
from guilder_shared.study import Study
from guilder_simulations.inprocess import InProcessGrid

NAMES = ("a", "b", "c")
PLAN = Plan(1.0, 5, 1e-3)
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
            "epsilon": 1.0,
            "delta": 1e-5,
            "clip_norm": 1.0,
        },
        "aggregation": {"min_sites": 3, "round_deadline_s": 0.5},
        "evaluation": {"on": "none"},
    }
)
Behave = Callable[[str, TurnRequest], TurnReply]


def honest(name: str, request: TurnRequest) -> TurnReply:
    """Every coordinate moves by the site's number, whatever the model."""
    step = {"a": 1.0, "b": 2.0, "c": 3.0}[name]
    return reply_with(request, lambda _name, shape: np.full(shape, step, np.float32))


def reply_with(
    request: TurnRequest, make: Callable[[str, tuple[int, ...]], np.ndarray]
) -> TurnReply:
    model = unpack(request.model, registry.shapes(STUDY))
    update = {n: make(n, w.shape) for n, w in model.items()}
    return TurnReply(
        Verdict.DONE,
        request.grant_id,
        request.turn_no,
        request.round_no,
        pack(update),
    )


def accept(name: str) -> Answer:
    return Answer(Verdict.ACCEPTED, name, f"grant-{name}", 1000)


def app_of(
    behave: Behave = honest,
    answer: Callable[[str], Answer] = accept,
    closed: Callable[[str], object] = str,
) -> ClientApp:
    app = ClientApp()

    @app.query("offer")
    def offer(message: Message, context: Context) -> Message:
        name = str(context.node_config["site"])
        return Message(wire.encode_answer(answer(name)), reply_to=message)

    @app.query("close")
    def close(message: Message, context: Context) -> Message:
        name = str(context.node_config["site"])
        closed(name)
        done = Answer(Verdict.DONE, name)
        return Message(wire.encode_answer(done), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        name = str(context.node_config["site"])
        reply = behave(name, wire.decode_request(message.content))
        return Message(wire.encode_reply(reply), reply_to=message)

    return app


def run(folder: Path, app: ClientApp, study: Study = STUDY) -> Weights:
    if (folder / "run.db").exists():
        store = RunStore.open(folder)
    else:
        facts = {"run_id": "r1", "plan": PLAN.facts()}
        store = RunStore.create(folder, study, facts)
    try:
        task = rounds.Run(study, PLAN, store, lambda _weights: {})
        return rounds.run(task, Sites(InProcessGrid(app, NAMES)))
    finally:
        store.close()


def with_quorum(min_sites: int) -> Study:
    changes = {"min_sites": min_sites, "round_deadline_s": 0.5}
    aggregation = STUDY.aggregation.model_copy(update=changes)
    return STUDY.model_copy(update={"aggregation": aggregation})


def moved_by(model: Weights, total: float) -> bool:
    start = registry.initial(STUDY)
    return all(np.allclose(model[n], start[n] + total, atol=1e-5) for n in start)


def nan(name: str, request: TurnRequest) -> TurnReply:
    return reply_with(request, lambda _n, shape: np.full(shape, np.nan, np.float32))


def huge(name: str, request: TurnRequest) -> TurnReply:
    return reply_with(request, lambda _n, shape: np.full(shape, 1e9, np.float32))


def misshapen(name: str, request: TurnRequest) -> TurnReply:
    return reply_with(request, lambda _n, shape: np.zeros((*shape, 2), np.float32))


def other_turn(name: str, request: TurnRequest) -> TurnReply:
    return replace(honest(name, request), turn_no=request.turn_no + 1)


def other_grant(name: str, request: TurnRequest) -> TurnReply:
    return replace(honest(name, request), grant_id="grant-a")


def no_update(name: str, request: TurnRequest) -> TurnReply:
    return replace(honest(name, request), update=b"\x00")


LIES = [nan, huge, misshapen, other_turn, other_grant, no_update]


def lying(lie: Behave) -> ClientApp:
    return app_of(lambda name, asked: (lie if name == "b" else honest)(name, asked))


@pytest.mark.parametrize("lie", LIES)
def test_a_site_that_lies_is_out_of_the_run_and_the_others_go_on(
    tmp_path: Path, lie: Behave
) -> None:
    model = run(tmp_path, lying(lie), with_quorum(2))

    assert moved_by(model, 3 * 2.0)  # the mean of a's 1 and c's 3
    out = [e for e in RunStore.open(tmp_path).events() if e["kind"] == "site-excluded"]
    assert [(e["site"], e["round"]) for e in out] == [("b", 1)]
    assert out[0]["id"].startswith("GLD-I0")
    assert "site 'b'" in out[0]["what"]


@pytest.mark.parametrize("lie", LIES)
def test_a_site_that_lies_ends_the_run_by_name_where_too_few_are_left(
    tmp_path: Path, lie: Behave
) -> None:
    with pytest.raises(IntegrityError, match=r"site 'b'.* 2 of at least 3"):
        run(tmp_path, lying(lie))

    assert RunStore.open(tmp_path).last_round() == 0


def test_a_site_that_is_out_stays_out_after_a_kill_and_is_told_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    closed: list[str] = []

    def behave(name: str, request: TurnRequest) -> TurnReply:
        asked.append(name)
        return (huge if name == "b" else honest)(name, request)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    sizes = {"a": 1000, "b": 30_000, "c": 3000}  # b's size shapes the others' weights
    app = app_of(
        behave, lambda n: replace(accept(n), public_size=sizes[n]), closed.append
    )
    undisturbed = run(tmp_path / "undisturbed", app, with_quorum(2))
    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "commit", kill)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", app, with_quorum(2))
    asked.clear()

    model = run(tmp_path / "killed", app, with_quorum(2))

    assert "b" not in asked
    assert closed == ["a", "c", "b"] * 2  # b is told like the others
    assert pack(model) == pack(undisturbed)
