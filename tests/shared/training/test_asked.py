"""Statistics of columns: what one unit moves, and what is read off."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats  # type: ignore[import-untyped]  # no stubs

from guilder_shared import tables
from guilder_shared.privacy import accounting
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import asked

KEY = bytes(range(32))
QUIET = 0.05
EDGES = [0, 10, 20, 50, 100]
ASK: dict[str, Any] = {
    "rows": {"ask": "count"},
    "age": {"ask": "mean", "column": "age"},
    "ages": {"ask": "histogram", "column": "age", "edges": EDGES},
    "kinds": {"ask": "histogram", "column": "kind"},
    "half": {"ask": "quantiles", "column": "age", "edges": EDGES, "at": [0.5]},
}
COUNTS = {name: each for name, each in ASK.items() if each["ask"] != "mean"}


def study_of(
    ask: dict[str, Any] | None = None, noise: str = "gaussian", unit: str = "record"
) -> Study:
    age = {"kind": "number", "low": 0, "high": 100}
    kind = {"kind": "category", "values": ["a", "b"]}
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "f", "recipe": "statistics", "purpose": "p"},
            "data": {"kind": "columns", "dataset": "d", "person": "who"}
            | {"columns": {"kind": kind, "age": age}},
            "statistics": {"noise": noise, "ask": ask or ASK},
            "privacy": {"unit": unit, "mechanism": "site-noise"}
            | {"epsilon": 1.0, "delta": 1e-6},
            "aggregation": {"min_sites": 1},
        }
    )


def rows(study: Study, num: int = 400) -> Examples:
    ages = [None if n % 40 == 7 else float(n % 97) for n in range(num)]
    kinds = [("a", "b", "b", "other")[n % 4] for n in range(num)]
    columns = {"age": ages, "kind": kinds, "who": [f"p{n // 5}" for n in range(num)]}
    return tables.encode(pa.table(columns), study.site_contract)


def without(examples: Examples, unit: int) -> Examples:
    units = examples.units
    mine = np.arange(len(examples)) if units is None else np.unique(units)
    kept = (mine if units is None else units) != mine[unit]
    return Examples(
        examples.inputs[kept],
        examples.targets[kept],
        None if units is None else units[kept],
    )


def told(study: Study, examples: Examples, noise: float = QUIET) -> dict[str, float]:
    total = asked.release(study, examples, noise_multiplier=noise, key=KEY)
    return asked.answers(study, total)


def test_with_little_noise_the_answers_are_those_of_the_rows() -> None:
    study = study_of()
    examples = rows(study)
    ages = examples.inputs[:, 0]
    ages = ages[np.isfinite(ages)]

    found = told(study, examples)

    assert found["rows"] == pytest.approx(400, abs=2)
    assert found["age.mean"] == pytest.approx(ages.mean(), abs=0.5)
    assert found["age.variance"] == pytest.approx(ages.var(), abs=20)
    assert found["kinds.a"] == pytest.approx(100, abs=2)
    assert found["kinds.b"] == pytest.approx(200, abs=2)
    assert found["ages.1"] == pytest.approx((ages < 10).sum(), abs=2)
    assert 40 < found["half.0.5"] < 55


def test_a_person_counts_once_whatever_rows_it_has() -> None:
    study = study_of(unit="person")
    examples = rows(study)

    found = told(study, examples)

    assert found["rows"] == pytest.approx(80, abs=2)
    assert found["kinds.a"] + found["kinds.b"] == pytest.approx(60, abs=4)


@pytest.mark.parametrize("unit", ["record", "person"])
def test_one_unit_moves_a_gaussian_release_by_its_sensitivity_at_most(
    unit: str,
) -> None:
    study = study_of(unit=unit)
    examples = rows(study)
    bounds = {"age": np.sqrt(3)}
    scale = np.concatenate(
        [np.full(n, bounds.get(name, 1.0)) for name, n in asked.widths(study).items()]
    ) * np.sqrt(len(ASK))

    def released(some: Examples) -> Any:
        return asked.release(study, some, noise_multiplier=QUIET, key=KEY)

    whole = released(examples)
    moves = [
        float(np.linalg.norm((whole - released(without(examples, unit))) / scale))
        for unit in (0, 3, 7, 50)
    ]

    assert max(moves) <= 1 + 2**-7  # both are rounded to a grid of 2**-9
    assert max(moves) > 0.4


@pytest.mark.parametrize("noise", ["laplace", "discrete-gaussian"])
def test_one_record_moves_whole_counts_by_one_in_one_place_of_each_question(
    noise: str,
) -> None:
    study = study_of(COUNTS, noise)
    examples = rows(study)
    ends = np.cumsum(list(asked.widths(study).values()))[:-1]

    def released(some: Examples) -> Any:
        return asked.release(study, some, noise_multiplier=2.0, key=KEY)

    whole = released(examples)
    for record in (0, 7, 3, 399):
        moved = whole - released(without(examples, record))  # the same noise
        parts = np.split(moved, ends)
        assert all(np.abs(part).sum() <= 1 for part in parts)
        assert np.array_equal(moved, np.rint(moved))
    plan = accounting.solve(study)
    event = accounting.turn_event(study, plan)
    assert event["count"] == len(COUNTS)
    assert event["of"]["event"] == noise


def test_rows_that_are_none_give_noise_of_the_charged_size() -> None:
    study = study_of({"rows": {"ask": "count"}}, "laplace")
    nobody = rows(study, 0)

    drawn = [
        asked.release(
            study, nobody, noise_multiplier=3.0, key=number.to_bytes(32, "big")
        )[0]
        for number in range(2000)
    ]

    seen = [sum(abs(x) > cut for x in drawn) for cut in (0.5, 2.5, 6.5)]
    for num, cut in zip(seen, (0.5, 2.5, 6.5), strict=True):
        chance = 2 * stats.laplace(scale=3.0).sf(cut)
        assert stats.binomtest(num, 2000, chance).pvalue > 1e-6


def test_few_counts_of_records_have_less_noise_with_laplace() -> None:
    one = {"rows": {"ask": "count"}}
    laplace = accounting.solve(study_of(one, "laplace")).noise_multiplier
    gaussian = accounting.solve(study_of(one)).noise_multiplier
    discrete = accounting.solve(study_of(one, "discrete-gaussian")).noise_multiplier

    assert laplace is not None
    assert gaussian is not None
    assert discrete is not None
    assert laplace * np.sqrt(2) < gaussian / 2
    assert discrete == pytest.approx(gaussian, rel=0.02)


def test_what_noise_left_without_meaning_is_left_out() -> None:
    study = study_of()

    assert asked.answers(study, np.full(15, -3.0)).keys() == {
        "rows",
        *(f"ages.{n}" for n in (1, 2, 3, 4)),
        "kinds.a",
        "kinds.b",
    }
