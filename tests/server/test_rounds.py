"""The protocol, driven by real apps on the in-process Grid; some sites lie."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from guilder_server import cohort, rounds
from guilder_server.grid import Sites
from guilder_server.runstore import RunStore
from guilder_shared import wire
from guilder_shared.errors import (
    BudgetSpent,
    IntegrityError,
    PolicyRefused,
    RunFailed,
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
) -> ClientApp:
    app = ClientApp()

    @app.query("offer")
    def offer(message: Message, context: Context) -> Message:
        name = str(context.node_config["site"])
        return Message(wire.encode_answer(answer(name)), reply_to=message)

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


def test_each_round_moves_the_model_by_the_mean_of_the_updates(tmp_path: Path) -> None:
    model = run(tmp_path, app_of())

    assert moved_by(model, 3 * 2.0)


def test_a_turn_given_up_is_asked_again_under_the_next_number(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def fails_once(name: str, request: TurnRequest) -> TurnReply:
        seen.append((name, request.round_no, request.turn_no))
        if (name, request.turn_no) == ("b", 2):
            return replace(
                honest(name, request), verdict=Verdict.TURN_FAILED, update=b""
            )
        return honest(name, request)

    model = run(tmp_path, app_of(fails_once))

    assert moved_by(model, 3 * 2.0)
    assert [turn for turn in seen if turn[0] == "b"] == [
        ("b", 1, 1),
        ("b", 2, 2),
        ("b", 2, 3),
        ("b", 3, 4),
    ]


def test_a_site_without_spare_turns_ends_the_run_by_name(tmp_path: Path) -> None:
    def fails(name: str, request: TurnRequest) -> TurnReply:
        if name != "b":
            return honest(name, request)
        return replace(honest(name, request), verdict=Verdict.TURN_FAILED, update=b"")

    with pytest.raises(RunFailed, match="site 'b' gave up turn 5 of 5"):
        run(tmp_path, app_of(fails))


def test_silence_is_asked_twice_and_then_named(tmp_path: Path) -> None:
    def silent(name: str, request: TurnRequest) -> TurnReply:
        if name == "c":
            raise ConnectionError
        return honest(name, request)

    with pytest.raises(RunFailed, match="missing: c") as caught:
        run(tmp_path, app_of(silent))

    assert caught.value.error_id == "GLD-R002"


def test_with_a_quorum_the_round_closes_at_its_deadline(tmp_path: Path) -> None:
    study = with_quorum(2)

    def silent(name: str, request: TurnRequest) -> TurnReply:
        if name == "c" and request.round_no == 2:
            raise ConnectionError
        return honest(name, request)

    model = run(tmp_path, app_of(silent), study)

    assert moved_by(model, 2.0 + 1.5 + 2.0)
    missed = [
        e for e in RunStore.open(tmp_path).events() if e["kind"] == "site-missed-round"
    ]
    assert [(e["site"], e["round"]) for e in missed] == [("c", 2)]


def test_a_site_that_is_always_busy_cannot_keep_a_round_open(tmp_path: Path) -> None:
    def busy(name: str, request: TurnRequest) -> TurnReply:
        if name == "c":
            return replace(honest(name, request), verdict=Verdict.BUSY, update=b"")
        return honest(name, request)

    with pytest.raises(RunFailed, match="missing: c") as caught:
        run(tmp_path, app_of(busy))

    assert caught.value.error_id == "GLD-R002"


def test_a_site_that_never_answers_an_offer_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohort, "GATHER_S", 0.05)
    waits: list[float] = []
    real = Sites.ask

    def ask(self: Sites, contents: Any, kind: str, **options: Any) -> Any:
        if kind == wire.OFFER:
            waits.append(options["timeout_s"])
        return real(self, contents, kind, **options)

    monkeypatch.setattr(Sites, "ask", ask)
    study = with_quorum(2)

    def answer(name: str) -> Answer:
        if name == "c":
            raise ConnectionError
        return accept(name)

    model = run(tmp_path, app_of(answer=answer), study)

    assert moved_by(model, 3 * 1.5)
    assert waits == [0.5, 0.05, 0.05]


def test_an_answer_that_is_none_is_blamed_on_its_site(tmp_path: Path) -> None:
    def answer(name: str) -> Answer:
        return replace(accept(name), public_size=-1 if name == "b" else 1)

    with pytest.raises(IntegrityError, match=r"site 'b': .*public_size"):
        run(tmp_path, app_of(answer=answer))


def test_a_server_killed_in_a_round_asks_the_same_turns_again(tmp_path: Path) -> None:
    seen: list[tuple[str, int, str]] = []
    killed: list[bool] = []

    def dies(name: str, request: TurnRequest) -> TurnReply:
        seen.append((name, request.turn_no, request.fingerprint()))
        return honest(name, request)

    def kill(self: RunStore, *_: object, **__: object) -> None:
        killed.append(True)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunStore, "commit", kill)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, app_of(dies))
    model = run(tmp_path, app_of(dies))

    assert killed
    assert seen[:3] == seen[3:6]
    assert moved_by(model, 3 * 2.0)


def test_a_site_that_answers_the_offer_in_anothers_name_is_found(
    tmp_path: Path,
) -> None:
    with pytest.raises(IntegrityError, match="certificate 'b' answered as 'a'"):
        run(tmp_path, app_of(answer=lambda name: accept("a" if name == "b" else name)))


@pytest.mark.parametrize(
    ("verdict", "error"),
    [
        (Verdict.REFUSED_BY_BUDGET, BudgetSpent),
        (Verdict.REFUSED_BY_POLICY, PolicyRefused),
    ],
)
def test_a_refusal_ends_the_run_with_the_sites_name_and_exit_code_4(
    tmp_path: Path, verdict: Verdict, error: type[Exception]
) -> None:
    def answer(name: str) -> Answer:
        return Answer(verdict, name, reason="no") if name == "c" else accept(name)

    with pytest.raises(error, match="site 'c'") as caught:
        run(tmp_path, app_of(answer=answer))

    assert caught.value.exit_code == 4  # type: ignore[attr-defined]


def test_a_refusal_in_a_later_round_ends_the_run_too(tmp_path: Path) -> None:
    def refuses(name: str, request: TurnRequest) -> TurnReply:
        if (name, request.round_no) == ("a", 2):
            return replace(
                honest(name, request), verdict=Verdict.REFUSED_BY_BUDGET, update=b""
            )
        return honest(name, request)

    with pytest.raises(BudgetSpent, match="site 'a'"):
        run(tmp_path, app_of(refuses))


def test_too_few_sites_are_waited_for_and_then_named(tmp_path: Path) -> None:
    study = with_quorum(4)

    with pytest.raises(RunFailed, match="3 of at least 4 sites") as caught:
        run(tmp_path, app_of(), study)

    assert caught.value.error_id == "GLD-R001"


@pytest.mark.parametrize("deadline_s", [1e-300, 1e-6])
def test_a_deadline_that_nobody_can_meet_ends_the_run_with_words(
    tmp_path: Path, deadline_s: float
) -> None:
    changes = {"round_deadline_s": deadline_s}
    aggregation = STUDY.aggregation.model_copy(update=changes)

    with pytest.raises(RunFailed, match="0 of at least 3 sites came"):
        run(tmp_path, app_of(), STUDY.model_copy(update={"aggregation": aggregation}))


def test_a_changed_model_file_is_never_trained_further(tmp_path: Path) -> None:
    run(tmp_path, app_of())
    path = RunStore.open(tmp_path).model_path(3)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")

    with pytest.raises(IntegrityError, match="not what round 3 wrote"):
        run(tmp_path, app_of())
