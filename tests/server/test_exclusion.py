"""Sites that lie are out of the run, on the in-process Grid with real apps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.clientapp import ClientApp

from guilder_server.runstore import RunStore
from guilder_shared.errors import IntegrityError
from guilder_shared.messages import TurnRequest, pack

Trial = Any  # the fixture `trial`; see conftest.py
Lie = Callable[[Trial, TurnRequest], Any]  # a TurnReply


def nan(trial: Trial, request: TurnRequest) -> Any:
    return filled(trial, request, np.nan)


def huge(trial: Trial, request: TurnRequest) -> Any:
    return filled(trial, request, 1e9)


def filled(trial: Trial, request: TurnRequest, value: float) -> Any:
    return trial.reply_with(
        request, lambda _n, shape: np.full(shape, value, np.float32)
    )


def misshapen(trial: Trial, request: TurnRequest) -> Any:
    return trial.reply_with(
        request, lambda _n, shape: np.zeros((*shape, 2), np.float32)
    )


def other_turn(trial: Trial, request: TurnRequest) -> Any:
    return replace(trial.honest("b", request), turn_no=request.turn_no + 1)


def other_grant(trial: Trial, request: TurnRequest) -> Any:
    return replace(trial.honest("b", request), grant_id="grant-a")


def no_update(trial: Trial, request: TurnRequest) -> Any:
    return replace(trial.honest("b", request), update=b"\x00")


def lying(trial: Trial, lie: Lie) -> ClientApp:
    def behave(name: str, asked: TurnRequest) -> Any:
        return lie(trial, asked) if name == "b" else trial.honest(name, asked)

    app: ClientApp = trial.app(behave)
    return app


@pytest.mark.parametrize(
    ("lie", "error_id"),
    [
        pytest.param(
            nan,
            "GLD-I042",
            marks=pytest.mark.attack("a site", "an update of NaN", "GLD-I042"),
        ),
        pytest.param(
            huge,
            "GLD-I045",
            marks=pytest.mark.attack("a site", "a huge update", "GLD-I045"),
        ),
        pytest.param(
            misshapen,
            "GLD-I041",
            marks=pytest.mark.attack(
                "a site", "an update of another shape", "GLD-I041"
            ),
        ),
        pytest.param(
            other_turn,
            "GLD-I048",
            marks=pytest.mark.attack(
                "a site", "an answer for another turn", "GLD-I048"
            ),
        ),
        pytest.param(
            other_grant,
            "GLD-I048",
            marks=pytest.mark.attack(
                "a site", "an answer under another site's grant", "GLD-I048"
            ),
        ),
        pytest.param(
            no_update,
            "GLD-I040",
            marks=pytest.mark.attack(
                "a site", "an update that is no tensors", "GLD-I040"
            ),
        ),
    ],
)
def test_a_site_that_lies_is_out_of_the_run_and_the_others_go_on(
    trial: Trial, tmp_path: Path, lie: Lie, error_id: str
) -> None:
    model = trial.run(tmp_path, lying(trial, lie), trial.with_quorum(2))

    assert trial.moved_by(model, 3 * 2.0)  # the mean of a's 1 and c's 3
    out = [e for e in RunStore.open(tmp_path).events() if e["kind"] == "site-excluded"]
    assert [(e["site"], e["round"]) for e in out] == [("b", 1)]
    assert out[0]["id"] == error_id
    assert "site 'b'" in out[0]["what"]


@pytest.mark.parametrize(
    "lie", [nan, huge, misshapen, other_turn, other_grant, no_update]
)
def test_a_site_that_lies_ends_the_run_by_name_where_too_few_are_left(
    trial: Trial, tmp_path: Path, lie: Lie
) -> None:
    with pytest.raises(IntegrityError, match=r"site 'b'.* 2 of at least 3"):
        trial.run(tmp_path, lying(trial, lie))

    assert RunStore.open(tmp_path).last_round() == 0


def test_a_site_that_is_out_stays_out_after_a_kill_and_is_told_of_the_end(
    trial: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    closed: list[str] = []

    def behave(name: str, request: TurnRequest) -> Any:
        asked.append(name)
        return huge(trial, request) if name == "b" else trial.honest(name, request)

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    sizes = {"a": 1000, "b": 30_000, "c": 3000}  # b's size shapes the others' weights
    app = trial.app(
        behave, lambda n: replace(trial.accept(n), public_size=sizes[n]), closed.append
    )
    undisturbed = trial.run(tmp_path / "undisturbed", app, trial.with_quorum(2))
    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "commit", kill)
        with pytest.raises(KeyboardInterrupt):
            trial.run(tmp_path / "killed", app, trial.with_quorum(2))
    asked.clear()

    model = trial.run(tmp_path / "killed", app, trial.with_quorum(2))

    assert "b" not in asked
    assert closed == ["a", "c", "b"] * 2  # b is told like the others
    assert pack(model) == pack(undisturbed)
