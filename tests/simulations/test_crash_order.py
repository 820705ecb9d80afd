"""kill -9 between a run's durable writes, server and sites: the same bytes after it."""

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from guilder_server.runstore import RunStore
from guilder_shared import durable, reports
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study
from guilder_simulations.engine import Run, simulate
from guilder_simulations.studies import path_of

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
ROUNDS = 2


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.load(path_of("breast-cancer"), (f"training.rounds={ROUNDS}",))


@pytest.fixture(scope="module")
def undisturbed(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(study, tmp_path_factory.mktemp("run"))


def killed_at(
    owner: Any, name: str, number: int, file: str | None = None, *, done: bool
) -> None:
    """Die at this call of `owner.name`, on this file: before it, or once it is done."""
    real, calls = getattr(owner, name), Counter[str]()

    def dying(*args: Any, **named: Any) -> Any:
        if file is not None and args[0].name != file:
            return real(*args, **named)
        calls[name] += 1
        if calls[name] == number and not done:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **named)
        if calls[name] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


POINTS: dict[str, tuple[Any, ...]] = {
    "a run's study is written": (durable, "write", 1, "study.toml"),
    "a turn has its number": (RunStore, "turn_no", 3),
    "a site is charged": (Ledger, "spend", 6),
    "a result is sealed": (Ledger, "seal", 6),
    "a receipt is kept": (Ledger, "receipt", 2),
    "a model is written": (durable, "write", 1, "model.safetensors"),
    "a round is committed": (RunStore, "commit", 1),
    "the last round is committed": (RunStore, "commit", ROUNDS),
    "a study is closed at a site": (Ledger, "close", 2),
    "a report is written": (reports, "write", 2),
}


@pytest.mark.parametrize(
    "done",
    [
        pytest.param(True, id="after"),
        pytest.param(
            False, id="before", marks=pytest.mark.slow
        ),  # near another's after
    ],
)
@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_at_a_durable_write_ends_with_the_same_bytes(
    study: Study, undisturbed: Run, tmp_path: Path, point: str, done: bool
) -> None:
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            killed_at(*POINTS[point], done=done)
            simulate(study, tmp_path)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status

    resumed = simulate(study, tmp_path)

    last = f"rounds/{ROUNDS:03d}/model.safetensors"
    assert (tmp_path / last).read_bytes() == (undisturbed.run_dir / last).read_bytes()
    assert resumed.metrics == undisturbed.metrics
    for report in sorted((tmp_path / "reports").glob("*.report.json")):
        (verified,) = reports.verify(report).studies
        assert verified.num_turns_spent == ROUNDS
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").open()]
    rounds = [event["round"] for event in events if event["kind"] == "round"]
    assert rounds == list(range(1, ROUNDS + 1))
