"""Audits of the code that trains: it passes as it is, and fails once it is broken.

Seeds are fixed, so nothing here is chance; the alarm's is 1e-6 for each audit.
"""

import json
import math
from typing import Any

import numpy as np
import pytest

from guilder_shared.errors import PlanError, StudyError
from guilder_shared.privacy import noise
from guilder_shared.privacy.bookkeeping import engine
from guilder_shared.privacy.bookkeeping.step import PrivateStep
from guilder_shared.study import Study
from guilder_shared.training import draws
from guilder_simulations.audit import bounds, trial
from guilder_simulations.audit.finding import BLIND_SPOTS, Audit
from guilder_simulations.studies import path_of


def audited(
    name: str, *overrides: str, num_canaries: int = 1_000, seed: int = 11
) -> Audit:
    study = Study.load(path_of(name), overrides)
    return trial.carry_out(
        study, num_canaries=num_canaries, seed=seed, attack_model=False
    )


SAMPLED = ("training.rounds=4", "training.local_steps=5", "training.sample_rate=0.2")


def test_the_right_code_is_not_contradicted_at_full_batch() -> None:
    found = audited("breast-cancer")

    assert found.outcome == "consistent"
    assert 0.5 < found.lower_bound < found.epsilon == pytest.approx(3.0, abs=0.01)


def test_the_right_code_is_not_contradicted_where_rows_are_sampled() -> None:
    found = audited("card-fraud", *SAMPLED)

    assert found.outcome == "consistent"
    assert found.lower_bound < found.epsilon


def test_the_right_code_is_not_contradicted_where_persons_are_hidden() -> None:
    found = audited("card-fraud-person", "training.rounds=4")

    assert (found.outcome, found.unit) == ("consistent", "person")
    assert 0 < found.lower_bound < found.epsilon


def test_the_right_code_is_not_contradicted_where_the_clip_norm_moves() -> None:
    found = audited("card-fraud", *SAMPLED, "training.adaptive_clip={}")

    assert found.outcome == "consistent"


@pytest.mark.parametrize("name", ["breast-cancer", "card-fraud"])
def test_training_without_noise_is_contradicted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrivateStep, "_order", lambda _: None)

    found = audited(name, *(SAMPLED if name == "card-fraud" else ()))

    assert found.contradicted
    assert found.lower_bound > found.epsilon


@pytest.mark.parametrize("name", ["breast-cancer", "card-fraud"])
def test_training_without_clipping_is_contradicted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CLIP_MARGIN", 1e9)

    found = audited(name, *(SAMPLED if name == "card-fraud" else ()))

    assert found.contradicted
    assert found.lower_bound > found.epsilon


def test_persons_clipped_row_by_row_are_contradicted_once_rows_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clipping that lets a person's sum grow eightfold, as eight rows would."""
    monkeypatch.setattr(engine, "CLIP_MARGIN", 8.0)

    assert audited("card-fraud-person", "training.rounds=4").contradicted


def test_everybody_drawn_in_every_step_is_contradicted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def everybody(num: int, rate: float, key: bytes) -> Any:
        return np.arange(num, dtype=np.int64)

    monkeypatch.setattr(draws, "poisson", everybody)

    assert audited("card-fraud").contradicted


def test_a_third_of_the_noise_is_contradicted_at_full_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_grids = noise.in_grids
    monkeypatch.setattr(noise, "in_grids", lambda std, grid: in_grids(std, grid) / 3)

    assert audited("breast-cancer", num_canaries=1000).contradicted


def test_an_alarm_that_a_second_trial_does_not_repeat_is_a_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([True, False, True, True])
    asked = bounds.any_contradicts

    def lucky(num: int, guesses: Any, claim: Any, error: float) -> bool:
        if error != trial.ALARM_ERROR:
            return asked(num, guesses, claim, error)
        return next(answers)

    monkeypatch.setattr(bounds, "any_contradicts", lucky)

    assert audited("breast-cancer", num_canaries=100).outcome == "doubtful"
    assert audited("breast-cancer", num_canaries=100).outcome == "contradicted"
    assert list(answers) == []  # each was tried twice


def test_the_same_seed_gives_the_same_audit() -> None:
    one, other, third = (audited("breast-cancer", seed=s) for s in (3, 3, 4))

    assert one.guesses == other.guesses != third.guesses
    assert one.lower_bound == other.lower_bound


@pytest.mark.parametrize(
    ("overrides", "num", "error_id"),
    [
        (("privacy.unit=site",), 400, "GLD-P105"),
        (("privacy.mechanism=none",), 400, "GLD-P106"),
        ((), 99, "GLD-P107"),
        ((), 5001, "GLD-P107"),
    ],
)
def test_what_cannot_be_audited_is_refused(
    overrides: tuple[str, ...], num: int, error_id: str
) -> None:
    with pytest.raises(PlanError) as caught:
        audited("breast-cancer", *overrides, num_canaries=num)

    assert caught.value.error_id == error_id


def test_a_study_of_statistics_has_no_training_to_audit() -> None:
    with pytest.raises(StudyError) as caught:
        audited("payment-figures")

    assert caught.value.error_id == "GLD-C137"


@pytest.mark.parametrize(
    "attacked", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_study_that_measures_held_out_units_is_audited_as_any_other(
    attacked: bool,
) -> None:
    charged = ("evaluation.on=charged", "evaluation.share=1.0", "evaluation.every=2")
    study = Study.load(path_of("breast-cancer"), (*charged, "training.rounds=4"))

    found = trial.carry_out(study, num_canaries=200, seed=11, attack_model=attacked)

    assert found.outcome == "consistent"
    assert found.turns == study.num_turns
    assert (found.membership is not None) == attacked


def test_what_the_audit_cannot_see_is_always_said() -> None:
    found = audited("breast-cancer", num_canaries=100)

    assert json.loads(found.to_json())["cannot_see"] == list(BLIND_SPOTS)
    assert all(each in found.to_text() for each in BLIND_SPOTS)
    assert json.loads(found.to_json())["claimed"]["epsilon"] <= 3.0
    assert math.isfinite(found.lower_bound)
