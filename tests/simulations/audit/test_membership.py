"""Membership by loss: right on losses that are known, and on made-up rows only."""

import numpy as np

from guilder_shared.study import Study
from guilder_simulations.audit import curves, membership, trial
from guilder_simulations.studies import path_of


def test_losses_that_tell_everything_find_every_member() -> None:
    found = membership.judge(np.full(300, 0.1), np.full(2000, 0.9))

    assert found.auc == 1.0
    assert found.caught == {0.01: 1.0, 0.001: 1.0}
    assert (found.members, found.strangers) == (300, 2000)


def test_losses_that_tell_nothing_find_nobody() -> None:
    found = membership.judge(np.full(300, 0.5), np.full(2000, 0.5))

    assert found.auc == 0.5
    assert found.caught == {0.01: 0.0, 0.001: 0.0}
    low, high = found.auc_interval
    assert low < 0.5 < high


def test_members_are_counted_at_the_false_alarms_that_were_asked_for() -> None:
    strangers = np.arange(1000, dtype=np.float64)
    members = np.array([5.0, 9.5, 10.5, 500.0])

    found = membership.judge(members, strangers)

    assert found.caught == {0.01: 0.5, 0.001: 0.0}  # 10 strangers lie below 10


def test_too_few_strangers_say_nothing_about_rare_false_alarms() -> None:
    found = membership.judge(np.zeros(50), np.ones(99))

    assert found.caught == {0.01: None, 0.001: None}


def test_a_file_is_never_attacked() -> None:
    """It may hold people's rows, and nothing was charged for what the attack tells."""
    study = Study.load(path_of("breast-cancer"), ("simulation.source=own.csv",))

    assert "file" in membership.why_not(study)


def test_the_model_of_a_private_study_stays_within_what_its_claim_allows() -> None:
    study = Study.load(path_of("breast-cancer"), ("training.rounds=4",))

    found = trial.carry_out(study, num_canaries=100, seed=5)

    assert found.membership is not None
    low, high = found.membership.auc_interval
    assert low < 0.6
    assert high > 0.4
    assert found.membership.members + found.membership.strangers == 569
    caught = found.membership.caught[0.01]
    assert caught is not None
    assert caught <= found.allowed[0.01]
    assert '"auc"' in found.to_json()
    assert "AUC" in found.to_text()


def test_what_a_claim_allows_grows_with_epsilon() -> None:
    strong, weak = curves.of_schedule(10, 1.0, 10.0), curves.of_schedule(10, 1.0, 2.0)

    assert 0.01 < strong.power(0.01) < weak.power(0.01) < 1
