"""Strategies in whole studies: a site poisons, processes die, no charge moves."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import guilder_client.app
from guilder_client.variates import Variates
from guilder_server.runstore import RunStore
from guilder_shared import durable, wire
from guilder_shared.messages import Verdict, pack, unpack
from guilder_shared.models import registry
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study
from guilder_simulations.engine import Run, simulate
from guilder_simulations.studies import path_of

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
ROUNDS = 4
STEPS = (
    f"training.rounds={ROUNDS}",
    "training.local_steps=2",
    "training.learning_rate=4",
)
KEYS = {
    "fedavg": (),
    "fedprox": ("proximal=0.05",),
    "fedadam": ("server_learning_rate=0.3",),
    "scaffold": (),
    "median": (),
    "trimmed-mean": ("trim=0.34",),
    "norm-bound": ("norm_bound=2.0",),
}


def study_of(name: str) -> Study:
    keys = [f"aggregation.{key}" for key in KEYS[name]]
    chosen = (*STEPS, f"aggregation.strategy={name}", *keys)
    return Study.load(path_of("breast-cancer"), chosen)


def poisoned(study: Study, real: Any) -> Any:
    """A ClientApp whose site-1 sends its update a hundredfold and turned around."""
    from flwr.app import Context, Message

    def make(find: Any) -> Any:
        app = real(find)

        def call(message: Message, context: Context) -> Message:
            reply: Message = app(message, context)
            if context.node_config["site"] != "site-1":
                return reply
            if message.metadata.message_type != wire.TURN:
                return reply
            told = wire.decode_reply(reply.content)
            assert told.verdict == Verdict.DONE
            update = unpack(told.update, registry.shapes(study))
            turned = {n: (-100 * w).astype(np.float32) for n, w in update.items()}
            content = wire.encode_reply(replace(told, update=pack(turned)))
            return Message(content, reply_to=message)

        return call

    return make


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("fedavg", False),
        ("median", True),
        ("norm-bound", True),
        pytest.param("trimmed-mean", True, marks=pytest.mark.slow),  # near the median
        pytest.param("fedprox", False, marks=pytest.mark.slow),
        pytest.param("fedadam", False, marks=pytest.mark.slow),
    ],
)
def test_one_site_that_poisons_ruins_a_mean_and_no_robust_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, holds: bool
) -> None:
    study = study_of(name)
    monkeypatch.setattr(
        guilder_client.app, "make_app", poisoned(study, guilder_client.app.make_app)
    )

    run = simulate(study, tmp_path)

    auc = run.metrics["auc"]
    assert (auc > 0.95) if holds else (auc < 0.5)


@pytest.fixture(scope="module", params=["scaffold", "fedadam"])
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Study, Run]:
    study = study_of(request.param)
    return study, simulate(study, tmp_path_factory.mktemp("undisturbed"))


def dying_at(owner: Any, name: str, number: int, file: str | None, done: bool) -> None:
    """Die at this call of `owner.name`, on this file: before it, or once it is done."""
    real, calls = getattr(owner, name), 0

    def dying(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += file is None or args[0].name == file
        if calls == number and not done:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **named)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


POINTS: dict[str, tuple[Any, ...]] = {
    "the strategy's state is written": (durable, "write", 2, "strategy.safetensors"),
    "a site's variate is written": (Variates, "write", 6, None),
    "a result is sealed": (Ledger, "seal", 6, None),
    "a round is committed": (RunStore, "commit", 2, None),
}
FAST = ("the strategy's state is written", "a site's variate is written")


@pytest.mark.parametrize(
    "done",
    [
        pytest.param(True, id="after"),
        pytest.param(False, id="before", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "point",
    [
        pytest.param(each, marks=() if each in FAST else pytest.mark.slow)
        for each in POINTS
    ],
)
def test_killed_where_state_is_written_the_run_ends_with_the_same_bytes(
    undisturbed: tuple[Study, Run], tmp_path: Path, point: str, done: bool
) -> None:
    study, whole = undisturbed
    if POINTS[point][0] is Variates and not study.aggregation.has_controls:
        pytest.skip("only scaffold has variates")
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            owner, name, number, file = POINTS[point]
            dying_at(owner, name, number, file, done)
            simulate(study, tmp_path)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status

    resumed = simulate(study, tmp_path)

    assert pack(resumed.model) == pack(whole.model)
    assert resumed.metrics == whole.metrics
    last = f"rounds/{ROUNDS:03d}/strategy.safetensors"
    assert (tmp_path / last).read_bytes() == (whole.run_dir / last).read_bytes()


def test_state_is_kept_of_the_last_round_alone_and_variates_end_with_the_run(
    undisturbed: tuple[Study, Run],
) -> None:
    _, whole = undisturbed

    left = sorted(whole.run_dir.glob("rounds/*/strategy.safetensors"))

    assert [path.parent.name for path in left] == [f"{ROUNDS:03d}"]
    assert list(whole.run_dir.glob("sites/*/turns/variates/*")) == []
    assert not (whole.run_dir / "updates.tmp").exists()


def test_no_strategy_is_charged_more_than_another() -> None:
    from guilder_shared.privacy import accounting

    plan = accounting.solve(study_of("fedavg"))

    for name in KEYS:
        study = study_of(name)
        accounting.check_plan(study, plan)
        assert accounting.turn_event(study, plan) == accounting.turn_event(
            study_of("fedavg"), plan
        )
