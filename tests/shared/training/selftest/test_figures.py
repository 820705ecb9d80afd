"""The self-test of figures: statistics and charged metrics, right and with bugs."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from guilder_shared.errors import PlanError
from guilder_shared.messages import Plan
from guilder_shared.privacy import accounting, exact, noise, statistics
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import asked, charged, selftest
from guilder_shared.training.selftest import Passed, trial
from guilder_shared.training.selftest import figures as figures_check
from guilder_shared.training.selftest.trial import Setting

Plant = Callable[[pytest.MonkeyPatch], None]
Make = Callable[..., Study]
EDGES = [0, 10, 20, 50, 100]
COUNTS: dict[str, Any] = {
    "rows": {"ask": "count"},
    "kinds": {"ask": "histogram", "column": "kind"},
    "half": {"ask": "quantiles", "column": "age", "edges": EDGES, "at": [0.5]},
}
EVERYTHING = COUNTS | {"age": {"ask": "mean", "column": "age"}}
ONE = {"rows": {"ask": "count"}}
SLOW = pytest.mark.slow
ROOM: Any = statistics  # with what it imports
KINDS = ("gaussian", "laplace", "discrete-gaussian")


def keys_from(seed: int) -> Callable[[], TurnKeys]:
    turns = iter(range(10**9))

    def make() -> TurnKeys:
        return TurnKeys.seeded(seed, site="s", round_no=1, turn_no=next(turns))

    return make


def asking(noise: str, ask: dict[str, Any], unit: str = "record") -> Study:
    age = {"kind": "number", "low": 0, "high": 100}
    kind = {"kind": "category", "values": ["a", "b"]}
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "f", "recipe": "statistics", "purpose": "p"},
            "data": {"kind": "columns", "dataset": "d", "person": "who"}
            | {"columns": {"kind": kind, "age": age}},
            "statistics": {"noise": noise, "ask": ask},
            "privacy": {"unit": unit, "mechanism": "site-noise"}
            | {"epsilon": 1.0, "delta": 1e-6},
            "aggregation": {"min_sites": 1},
        }
    )


def passed(study: Study, multiplier: float = 4.0, *, seed: int = 1) -> Passed:
    keys = keys_from(seed)
    measuring = 9.0 if study.evaluation.on == "charged" else None
    plan = Plan(multiplier, study.num_turns, accounting.SENSITIVITY_SLACK, measuring)
    return selftest.run(study, plan, public_size=300, make_keys=keys)


def refused(study: Study, multiplier: float = 4.0) -> str:
    with pytest.raises(PlanError) as caught:
        passed(study, multiplier)
    assert caught.value.error_id == "GLD-P070"
    return str(caught.value)


@pytest.mark.parametrize("multiplier", [0.3, 300.0])
@pytest.mark.parametrize("kind", KINDS)
def test_figures_pass_on_code_that_is_right(kind: str, multiplier: float) -> None:
    study = asking(kind, EVERYTHING if kind == "gaussian" else COUNTS)

    assert passed(study, multiplier).checks == ("noise", "removal of a unit", "bounds")


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_count_passes(kind: str) -> None:
    assert passed(asking(kind, ONE))


def test_figures_of_persons_pass() -> None:
    assert passed(asking("gaussian", EVERYTHING, unit="person"))


def noise_halved(plant: pytest.MonkeyPatch) -> None:
    in_grids, noised = noise.in_grids, exact.noised
    plant.setattr(noise, "in_grids", lambda std, grid: in_grids(std, grid) / 2)
    plant.setattr(exact, "noised", lambda c, kind, z, key: noised(c, kind, z / 2, key))


def noise_a_fifth_small(plant: pytest.MonkeyPatch) -> None:
    in_grids, noised = noise.in_grids, exact.noised
    plant.setattr(noise, "in_grids", lambda std, grid: in_grids(std, grid) * 0.8)
    less = 0.8
    plant.setattr(
        exact, "noised", lambda c, kind, z, key: noised(c, kind, less * z, key)
    )


def noise_seeded(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(TurnKeys, "key", lambda *_: bytes(32))


def noise_from_the_global_generator(plant: pytest.MonkeyPatch) -> None:
    def drawn() -> bytes:
        return torch.randint(0, 256, (32,)).to(torch.uint8).numpy().tobytes()

    plant.setattr(TurnKeys, "key", lambda *_: drawn())


def noise_of_one_number_for_all(plant: pytest.MonkeyPatch) -> None:
    add, noised = ROOM.add_noise, exact.noised

    def alike(total: Any, std: float, key: bytes, grid: float) -> Any:
        return total + add(np.zeros(1), std, key, grid)

    def whole_alike(counts: Any, kind: str, z: float, key: bytes) -> Any:
        return counts + noised(np.zeros(1, np.int64), kind, z, key)

    plant.setattr(statistics, "add_noise", alike)
    plant.setattr(exact, "noised", whole_alike)


def divided_by_how_many_there_are(plant: pytest.MonkeyPatch) -> None:
    release = asked.release

    def mean(study: Study, rows: Any, **given: Any) -> Any:
        nobody = Examples(rows.inputs[:0], rows.targets[:0], rows.units)
        if nobody.units is not None:
            nobody = Examples(*(x[:0] for x in (*_arrays(rows), rows.units)))
        drawn = release(study, nobody, **given)
        share = 8 / max(1, len(rows))
        return drawn + np.rint((release(study, rows, **given) - drawn) * share)

    plant.setattr(asked, "release", mean)


def _arrays(rows: Any) -> tuple[Any, Any]:
    return rows.inputs, rows.targets


def a_row_counted_twice(plant: pytest.MonkeyPatch) -> None:
    histogram, count = statistics.histogram, statistics.count
    plant.setattr(
        statistics,
        "histogram",
        lambda *given: twice(histogram(*given)),
    )
    plant.setattr(statistics, "count", lambda *given: twice(count(*given)))
    plant.setattr(statistics, "_INSIDE", 2.0)


def twice(block: statistics.Block) -> statistics.Block:
    return statistics.Block(block.name, 2 * block.rows, block.bound)


@pytest.mark.parametrize(
    "kind", [KINDS[0], *(pytest.param(kind, marks=SLOW) for kind in KINDS[1:])]
)
@pytest.mark.parametrize(
    "plant",
    [
        noise_halved,
        noise_a_fifth_small,
        noise_seeded,
        noise_from_the_global_generator,
        noise_of_one_number_for_all,
        divided_by_how_many_there_are,
        a_row_counted_twice,
    ],
)
def test_a_planted_bug_is_caught(
    plant: Plant, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = asking(kind, EVERYTHING if kind == "gaussian" else COUNTS)
    plant(monkeypatch)

    refused(study)


@pytest.mark.parametrize("unit", ["record", "person"])
def test_a_range_that_is_ignored_is_caught(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = statistics.moments

    def wide(name: str, values: Any, low: float, high: float) -> statistics.Block:
        return moments(name, values, low - 50 * (high - low), high + 50 * (high - low))

    monkeypatch.setattr(statistics, "moments", wide)

    assert "does not count as the bound" in refused(
        asking("gaussian", EVERYTHING, unit)
    )


def test_a_unit_that_is_not_scaled_down_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three rows of a person each count whole."""
    monkeypatch.setattr(statistics, "averaged", lambda blocks, _units: blocks)
    monkeypatch.setattr(statistics, "_INSIDE", 3.0)

    found = refused(asking("gaussian", EVERYTHING, "person"))

    assert "moves figures by" in found


def test_a_row_that_is_not_finite_and_spoils_all_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unmasked(name: str, values: Any, low: float, high: float) -> statistics.Block:
        moved = 2 * (np.clip(values, low, high) - low) / (high - low) - 1
        rows = np.stack([np.ones_like(moved), moved, moved**2], axis=1)
        return statistics.Block(name, rows, 3**0.5)

    def summed(blocks: Any, _units: Any = None) -> Any:
        share = len(blocks) ** 0.5
        sums = [block.rows.sum(axis=0) / block.bound / share for block in blocks]
        return np.concatenate(sums)

    monkeypatch.setattr(statistics, "moments", unmasked)
    monkeypatch.setattr(statistics, "total", summed)

    assert "not finite" in refused(asking("gaussian", EVERYTHING))


@pytest.fixture
def measuring(study_of: Make) -> Study:
    evaluation = {"on": "charged", "share": 1.0}
    return study_of(evaluation=evaluation, sample_rate=0.1, local_steps=2)


def test_a_study_with_charged_metrics_passes(measuring: Study) -> None:
    assert passed(measuring).checks == (*selftest.CHECKS, "charged metrics")


def metrics_noise_halved(plant: pytest.MonkeyPatch) -> None:
    add = ROOM.add_noise
    plant.setattr(
        statistics, "add_noise", lambda total, std, *rest: add(total, std / 2, *rest)
    )


def metrics_noise_seeded(plant: pytest.MonkeyPatch) -> None:
    release = charged.release
    plant.setattr(
        charged, "release", lambda *rows, **given: release(*rows, **given | FIXED)
    )


FIXED = {"key": bytes(32)}


def loss_with_another_bound(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(charged, "_largest", lambda _study: 1e3)


def loss_longer_than_its_bound(plant: pytest.MonkeyPatch) -> None:
    total = statistics.total
    plant.setattr(statistics, "total", lambda blocks, units: 1.1 * total(blocks, units))


def metrics_over_how_many_there_are(plant: pytest.MonkeyPatch) -> None:
    total = statistics.total

    def mean(blocks: Any, units: Any) -> Any:
        return 8 * total(blocks, units) / max(8, 2 * len(blocks[0].rows))

    plant.setattr(statistics, "total", mean)


@pytest.mark.parametrize(
    "plant",
    [
        metrics_noise_halved,
        metrics_noise_seeded,
        loss_with_another_bound,
        loss_longer_than_its_bound,
        metrics_over_how_many_there_are,
    ],
)
def test_a_bug_planted_into_charged_metrics_is_caught(
    plant: Plant, measuring: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    plan = Plan(4.0, measuring.num_turns, accounting.SENSITIVITY_SLACK, 9.0)
    setting = Setting(measuring, plan, 300, keys_from(1))

    assert figures_check.check_metrics(setting, trial.start(measuring), until=math.inf)


def test_charged_metrics_that_fail_refuse_the_study(
    measuring: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures_check, "check_metrics", lambda *_, **__: ["so and so"])

    assert "so and so" in refused(measuring)


@pytest.mark.slow
def test_no_false_alarm_on_a_hundred_keys() -> None:
    studies = [asking(kind, COUNTS) for kind in KINDS]
    studies.append(asking("gaussian", EVERYTHING, "person"))
    alarms = []

    for seed in range(100):
        study = studies[seed % len(studies)]
        plan = Plan(0.5 + seed / 10, 1, accounting.SENSITIVITY_SLACK)
        setting = Setting(study, plan, 300, keys_from(seed))
        alarms += figures_check.check_statistics(setting)

    assert alarms == []
