"""The protocol, driven by real apps on the in-process Grid; some sites lie."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guilder_server import cohort
from guilder_server.grid import Sites
from guilder_server.runstore import RunStore
from guilder_shared import wire
from guilder_shared.errors import (
    BudgetSpent,
    IntegrityError,
    PolicyRefused,
    RunFailed,
)
from guilder_shared.messages import Answer, TurnRequest, Verdict


def test_each_round_moves_the_model_by_the_mean_of_the_updates(
    trial: Any, tmp_path: Path
) -> None:
    model = trial.run(tmp_path, trial.app())

    assert trial.moved_by(model, 3 * 2.0)


def test_a_turn_given_up_is_asked_again_under_the_next_number(
    trial: Any, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int]] = []

    def fails_once(name: str, request: TurnRequest) -> Any:
        seen.append((name, request.round_no, request.turn_no))
        if (name, request.turn_no) == ("b", 2):
            return replace(
                trial.honest(name, request), verdict=Verdict.TURN_FAILED, update=b""
            )
        return trial.honest(name, request)

    model = trial.run(tmp_path, trial.app(fails_once))

    assert trial.moved_by(model, 3 * 2.0)
    assert [turn for turn in seen if turn[0] == "b"] == [
        ("b", 1, 1),
        ("b", 2, 2),
        ("b", 2, 3),
        ("b", 3, 4),
    ]


def test_a_site_without_spare_turns_ends_the_run_by_name(
    trial: Any, tmp_path: Path
) -> None:
    def fails(name: str, request: TurnRequest) -> Any:
        if name != "b":
            return trial.honest(name, request)
        return replace(
            trial.honest(name, request), verdict=Verdict.TURN_FAILED, update=b""
        )

    with pytest.raises(RunFailed, match="site 'b' gave up turn 5 of 5"):
        trial.run(tmp_path, trial.app(fails))


def test_silence_is_asked_twice_and_then_named(trial: Any, tmp_path: Path) -> None:
    def silent(name: str, request: TurnRequest) -> Any:
        if name == "c":
            raise ConnectionError
        return trial.honest(name, request)

    with pytest.raises(RunFailed, match="missing: c") as caught:
        trial.run(tmp_path, trial.app(silent))

    assert caught.value.error_id == "GLD-R002"


def test_with_a_quorum_the_round_closes_at_its_deadline(
    trial: Any, tmp_path: Path
) -> None:
    study = trial.with_quorum(2)

    def silent(name: str, request: TurnRequest) -> Any:
        if name == "c" and request.round_no == 2:
            raise ConnectionError
        return trial.honest(name, request)

    model = trial.run(tmp_path, trial.app(silent), study)

    assert trial.moved_by(model, 2.0 + 1.5 + 2.0)
    missed = [
        e for e in RunStore.open(tmp_path).events() if e["kind"] == "site-missed-round"
    ]
    assert [(e["site"], e["round"]) for e in missed] == [("c", 2)]


def test_a_site_that_joins_late_takes_part_from_the_next_round_on(
    trial: Any, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    trial.away.add("c")

    def behave(name: str, request: TurnRequest) -> Any:
        if (name, request.round_no) == ("a", 2):
            trial.away.clear()  # c comes online in the middle of round 2
        if name == "c":
            seen.append((request.round_no, request.turn_no))
        return trial.honest(name, request)

    model = trial.run(tmp_path, trial.app(behave), trial.with_quorum(2))

    assert trial.moved_by(model, 1.5 + 1.5 + 2.0)
    assert seen == [(3, 1)]


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_site_that_is_shut_out_is_not_waited_for_until_it_is_let_in_again(
    trial: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    asked: dict[str, int] = {}
    real = Sites.ask

    def ask(self: Sites, contents: Any, kind: str, **options: Any) -> Any:
        if kind == wire.TURN:
            asked.setdefault(options["group"], len(contents))
        return real(self, contents, kind, **options)

    def behave(name: str, request: TurnRequest) -> Any:
        if (name, request.round_no) == ("a", 1):
            trial.shut_out.add("c")  # its answer to round 1 is on its way
        if (name, request.round_no) == ("b", 2) and comes_back:
            trial.shut_out.clear()
        return trial.honest(name, request)

    monkeypatch.setattr(Sites, "ask", ask)
    monkeypatch.setattr(cohort, "GATHER_S", 0.2)
    trial.run(tmp_path, trial.app(behave), trial.with_quorum(2))

    assert asked == {"1": 3, "2": 2, "3": 3 if comes_back else 2}


def test_the_round_in_which_a_silent_site_is_shut_out_waits_for_it_no_longer(
    trial: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohort, "GATHER_S", 0.2)
    study = trial.with_quorum(2)
    patient = {"round_deadline_s": 3600.0}  # a test that waits for it is cut
    aggregation = study.aggregation.model_copy(update=patient)

    def behave(name: str, request: TurnRequest) -> Any:
        if name == "c":
            trial.shut_out.add("c")
            raise ConnectionError
        return trial.honest(name, request)

    model = trial.run(
        tmp_path,
        trial.app(behave),
        study.model_copy(update={"aggregation": aggregation}),
    )

    assert trial.moved_by(model, 3 * 1.5)


def test_a_site_that_is_always_busy_cannot_keep_a_round_open(
    trial: Any, tmp_path: Path
) -> None:
    def busy(name: str, request: TurnRequest) -> Any:
        if name == "c":
            return replace(
                trial.honest(name, request), verdict=Verdict.BUSY, update=b""
            )
        return trial.honest(name, request)

    with pytest.raises(RunFailed, match="missing: c") as caught:
        trial.run(tmp_path, trial.app(busy))

    assert caught.value.error_id == "GLD-R002"


def test_a_site_that_never_answers_an_offer_is_waited_for_once(
    trial: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohort, "GATHER_S", 0.05)
    waits: list[float] = []
    real = Sites.ask

    def ask(self: Sites, contents: Any, kind: str, **options: Any) -> Any:
        if kind == wire.OFFER:
            waits.append(options["timeout_s"])
        return real(self, contents, kind, **options)

    monkeypatch.setattr(Sites, "ask", ask)
    study = trial.with_quorum(2)

    def answer(name: str) -> Any:
        if name == "c":
            raise ConnectionError
        return trial.accept(name)

    model = trial.run(tmp_path, trial.app(answer=answer), study)

    assert trial.moved_by(model, 3 * 1.5)
    assert waits == [0.5, 0.05, 0.05]


def test_an_answer_that_is_none_is_blamed_on_its_site(
    trial: Any, tmp_path: Path
) -> None:
    def answer(name: str) -> Any:
        return replace(trial.accept(name), public_size=-1 if name == "b" else 1)

    with pytest.raises(IntegrityError, match=r"site 'b': .*public_size"):
        trial.run(tmp_path, trial.app(answer=answer))


def test_a_server_killed_in_a_round_asks_the_same_turns_again(
    trial: Any, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, str]] = []
    killed: list[bool] = []

    def dies(name: str, request: TurnRequest) -> Any:
        seen.append((name, request.turn_no, request.fingerprint()))
        return trial.honest(name, request)

    def kill(self: RunStore, *_: object, **__: object) -> None:
        killed.append(True)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunStore, "commit", kill)
        with pytest.raises(KeyboardInterrupt):
            trial.run(tmp_path, trial.app(dies))
    model = trial.run(tmp_path, trial.app(dies))

    assert killed
    assert seen[:3] == seen[3:6]
    assert trial.moved_by(model, 3 * 2.0)


@pytest.mark.attack(
    "a site", "another site's name in the answer to an offer", "GLD-I046"
)
def test_a_site_that_answers_the_offer_in_anothers_name_is_found(
    trial: Any,
    tmp_path: Path,
) -> None:
    app = trial.app(answer=lambda name: trial.accept("a" if name == "b" else name))

    with pytest.raises(IntegrityError, match="'b' answered as 'a'") as caught:
        trial.run(tmp_path, app)

    assert caught.value.error_id == "GLD-I046"


@pytest.mark.parametrize(
    ("verdict", "error"),
    [
        (Verdict.REFUSED_BY_BUDGET, BudgetSpent),
        (Verdict.REFUSED_BY_POLICY, PolicyRefused),
    ],
)
def test_a_refusal_ends_the_run_with_the_sites_name_and_exit_code_4(
    trial: Any, tmp_path: Path, verdict: Verdict, error: type[Exception]
) -> None:
    def answer(name: str) -> Any:
        return Answer(verdict, name, reason="no") if name == "c" else trial.accept(name)

    with pytest.raises(error, match="site 'c'") as caught:
        trial.run(tmp_path, trial.app(answer=answer))

    assert caught.value.exit_code == 4  # type: ignore[attr-defined]


def test_a_refusal_in_a_later_round_ends_the_run_too(
    trial: Any, tmp_path: Path
) -> None:
    def refuses(name: str, request: TurnRequest) -> Any:
        if (name, request.round_no) == ("a", 2):
            return replace(
                trial.honest(name, request),
                verdict=Verdict.REFUSED_BY_BUDGET,
                update=b"",
            )
        return trial.honest(name, request)

    with pytest.raises(BudgetSpent, match="site 'a'"):
        trial.run(tmp_path, trial.app(refuses))


def test_too_few_sites_are_waited_for_and_then_named(
    trial: Any, tmp_path: Path
) -> None:
    study = trial.with_quorum(4)

    with pytest.raises(RunFailed, match="3 of at least 4 sites") as caught:
        trial.run(tmp_path, trial.app(), study)

    assert caught.value.error_id == "GLD-R001"


@pytest.mark.parametrize("deadline_s", [1e-300, 1e-6])
def test_a_deadline_that_nobody_can_meet_ends_the_run_with_words(
    trial: Any, tmp_path: Path, deadline_s: float
) -> None:
    changes = {"round_deadline_s": deadline_s}
    aggregation = trial.study.aggregation.model_copy(update=changes)

    with pytest.raises(RunFailed, match="0 of at least 3 sites came"):
        trial.run(
            tmp_path,
            trial.app(),
            trial.study.model_copy(update={"aggregation": aggregation}),
        )


def test_a_changed_model_file_is_never_trained_further(
    trial: Any, tmp_path: Path
) -> None:
    trial.run(tmp_path, trial.app())
    path = RunStore.open(tmp_path).model_path(3)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")

    with pytest.raises(IntegrityError, match="not what round 3 wrote"):
        trial.run(tmp_path, trial.app())
