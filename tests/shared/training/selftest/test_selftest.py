"""What the self-test says of code that is right, and when it says it."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guilder_shared.errors import PlanError
from guilder_shared.messages import Plan
from guilder_shared.privacy import witness
from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.training import selftest
from guilder_shared.training.selftest import Passed, chance, source, trial
from guilder_shared.training.selftest import noise as noise_check
from guilder_shared.training.selftest import sampling as sampling_check
from guilder_shared.training.selftest import verdict as running
from guilder_shared.training.selftest.trial import Setting

Run = Callable[..., Passed]
Make = Callable[..., Study]


def plan_for(study: Study) -> Plan:
    turns = study.training.rounds + study.aggregation.spare_turns
    return Plan(1.5, turns, SENSITIVITY_SLACK)


def keys_from(seed: int) -> Callable[[], TurnKeys]:
    """Keys that differ from call to call and not from run to run."""
    turns = iter(range(10**9))

    def make() -> TurnKeys:
        return TurnKeys.seeded(seed, site="s", round_no=1, turn_no=next(turns))

    return make


ROOT = Path(__file__).parents[4]


def site_study(make: Make, **options: Any) -> Study:
    return make(privacy={"unit": "site"}, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: m(),
        lambda m: m(sample_rate=0.01, local_steps=3),
        lambda m: m(model={"name": "mlp", "hidden": [32]}, sample_rate=0.5),
        lambda m: m(privacy={"clip_norm": 1e4}),
        lambda m: m(privacy={"clip_norm": 1e-4}, optimizer="adam", local_steps=3),
        lambda m: m(adaptive_clip={"quantile": 0.5}, local_steps=3, sample_rate=0.2),
        lambda m: m(augment={"copies": 3, "jitter": 0.1}, sample_rate=0.2),
        lambda m: site_study(m),
    ],
)
def test_a_study_passes_on_code_that_is_right(
    tested: Run, study_of: Make, make: Callable[[Make], Study]
) -> None:
    passed = tested(make(study_of))

    assert passed.checks == selftest.CHECKS


def test_a_study_of_persons_passes(tested: Run, persons: Study) -> None:
    full = persons.training.model_copy(update={"sample_rate": 1.0})

    assert tested(persons).checks == selftest.CHECKS
    assert tested(persons.model_copy(update={"training": full}))


@pytest.mark.slow
def test_no_false_alarm_on_three_hundred_keys(small: Study, persons: Study) -> None:
    """Only these two checks leave anything to chance."""
    alarms = []

    for seed in range(300):
        study = small if seed % 2 else persons
        setting = Setting(study, plan_for(study), 300, keys_from(seed))
        table = source.table(study, 8)
        some = source.examples(study, table)
        nobody = source.examples(study, table.slice(0, 0))
        weights = trial.start(study)
        alarms += noise_check.check(setting, nobody, weights)
        alarms += sampling_check.check(setting, some, weights)

    assert alarms == []


def test_the_same_test_is_run_once_in_a_process(
    small: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Study] = []

    def count(study: Study, *_: Any, **__: Any) -> Passed:
        runs.append(study)
        return Passed(("counted",), "0", 0.0)

    monkeypatch.setattr(running, "run", count)
    monkeypatch.setattr(running, "_passed", {})
    plan = Plan(1.5, 18, 1e-3)

    first = selftest.ensure(small, plan, public_size=300)
    again = selftest.ensure(small, plan, public_size=300)
    other = selftest.ensure(small, Plan(1.6, 18, 1e-3), public_size=300)

    assert first is again
    assert len(runs) == 2
    assert other is not None


def test_a_study_that_promises_nothing_is_not_tested(
    study_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "run", None)
    study = study_of(privacy={"mechanism": "none"})

    assert selftest.ensure(study, Plan(None, 18, 1e-3), public_size=9) is None


def test_the_error_tells_the_server_no_detail(
    tested: Run, small: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise_check, "check", lambda *_: ["a detail of this machine"])

    with pytest.raises(PlanError) as caught:
        tested(small)

    assert caught.value.brief() == "GLD-P070: the self-test of this study failed here."
    assert "a detail of this machine" in str(caught.value)


def test_the_global_generators_are_left_as_they_were(tested: Run, small: Study) -> None:
    before = random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]

    tested(small)

    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]


def test_nothing_is_kept_of_a_step_that_nobody_watches() -> None:
    witness.begins()
    witness.read(np.arange(3))
    witness.summed(torch.ones(3))
    witness.gave([torch.ones(3)])

    with witness.watching() as seen:
        witness.read(np.arange(3))  # before a step begins

    assert seen == []


def test_the_self_test_alone_watches_steps() -> None:
    """A clipped sum before noise is secret: no turn may hand it to anybody."""
    rooms = ("shared", "server", "client", "simulations", "deploy")
    users = {
        path.relative_to(ROOT).as_posix()
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"\bwatching\(", path.read_text("utf-8"))
    }

    assert users == {
        "shared/guilder_shared/privacy/witness.py",
        "shared/guilder_shared/training/selftest/trial.py",
        "shared/guilder_shared/training/worker.py",  # told to, by a self-test
    }
    worker = ROOT / "shared/guilder_shared/training/worker.py"
    assert "watching() if shares.watched else" in worker.read_text("utf-8")


@pytest.mark.parametrize(
    ("count", "fits"), [(500, True), (400, False), (600, False), (430, True)]
)
def test_binomial_tails_are_where_they_are(count: int, fits: bool) -> None:
    """A thousand fair coins: 5.5 standard deviations are 87."""
    assert chance.binomial_fits(count, 1000, 0.5) is fits


def test_a_count_that_is_all_or_nothing_is_judged_by_its_own_chance() -> None:
    assert chance.binomial_fits(10, 10, 0.5)
    assert not chance.binomial_fits(40, 40, 0.5)
    assert not chance.binomial_fits(0, 40, 0.5)
    assert chance.binomial_fits(0, 40, 0.01)


def test_a_share_is_divided_among_units() -> None:
    assert not chance.binomial_fits(590, 1000, 0.5)
    assert chance.binomial_fits(590, 1000, 0.5, among=1000)


@pytest.mark.parametrize("share", [0.9, 1.1])
def test_a_variance_off_by_a_tenth_is_told_from_ten_thousand_numbers(
    share: float,
) -> None:
    assert chance.chi_square_fits(10_000, 10_000)
    assert not chance.chi_square_fits(10_000 * share, 10_000)


def test_shares_of_all_tails_stay_below_one_in_a_million() -> None:
    assert chance.MOST_TAILS * chance.SHARE < 1e-6
    assert TurnKeys.from_os() != TurnKeys.from_os()


@pytest.mark.parametrize(("num", "rate"), [(16, 0.5), (160, 0.1), (20, 0.9)])
def test_the_spread_of_sizes_is_believed_of_coins_and_of_nothing_else(
    num: int, rate: float
) -> None:
    rng = np.random.default_rng(0)
    draws = max(256, chance.draws_for_spread(num, rate))
    coins = rng.binomial(num, rate, draws).tolist()

    assert chance.spread_fits(coins, num, rate)
    assert not chance.spread_fits([round(num * rate)] * draws, num, rate)
    together = [num * int(x < rate) for x in rng.random(draws)]
    assert not chance.spread_fits(together, num, rate)
