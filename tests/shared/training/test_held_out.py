"""Which units are held out: each decided by itself, none on both sides."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # no stubs

from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import held_out

Make = Callable[..., Study]
CHARGED = {"on": "charged", "rows": 0.3, "share": 1.0}
PERSON = {"unit": "person", "max_records": 5}


def study_for(study_of: Make, persons: bool) -> Study:
    if not persons:
        return study_of(evaluation=CHARGED)
    return study_of(evaluation=CHARGED, person="who", privacy=PERSON)


def examples(names: NDArray[np.int64], persons: bool) -> Examples:
    """A row for each name; equal names have equal rows, and are one person."""
    inputs = np.stack([names, names % 7, -names], axis=1).astype(np.float32)
    return Examples(inputs, (names % 2).astype(np.float32), names if persons else None)


def names_in(part: Examples | None) -> list[int]:
    assert part is not None
    return sorted(part.inputs[:, 0].astype(int).tolist())


@settings(max_examples=50, deadline=None)
@given(
    names=st.lists(st.integers(0, 50), min_size=1, max_size=60),
    place=st.integers(0, 59),
    persons=st.booleans(),
)
def test_a_unit_is_on_one_side_and_who_else_is_there_moves_nobody(
    study_of: Make, names: list[int], place: int, persons: bool
) -> None:
    study, rows = study_for(study_of, persons), np.array(names)
    gone = names[place % len(names)]
    rest = rows[rows != gone]

    whole = held_out.split(examples(rows, persons), study, "grant")
    less = held_out.split(examples(rest, persons), study, "grant")

    trained, measured = names_in(whole.training), names_in(whole.measured)
    assert sorted(trained + measured) == sorted(names)
    assert not set(trained) & set(measured)
    assert names_in(less.training) == [name for name in trained if name != gone]
    assert names_in(less.measured) == [name for name in measured if name != gone]


@pytest.mark.parametrize("persons", [False, True])
def test_the_share_is_the_studys_and_another_grant_holds_out_others(
    study_of: Make, persons: bool
) -> None:
    study, rows = study_for(study_of, persons), np.arange(20_000)

    one = names_in(held_out.split(examples(rows, persons), study, "a").measured)
    other = names_in(held_out.split(examples(rows, persons), study, "b").measured)

    law, both = stats.binom(20_000, 0.3), stats.binom(20_000, 0.09)
    assert law.ppf(2.5e-7) <= len(one) <= law.isf(2.5e-7)
    shared = len(set(one) & set(other))
    assert both.ppf(2.5e-7) <= shared <= both.isf(2.5e-7)


def test_without_charged_metrics_nobody_is_held_out(study_of: Make) -> None:
    rows = examples(np.arange(10), persons=False)

    parts = held_out.split(rows, study_of(), "grant")

    assert parts.training is rows
    assert parts.measured is None


def test_the_divisor_follows_from_public_numbers_alone(study_of: Make) -> None:
    charged = study_of(evaluation=CHARGED)

    assert held_out.training_size(1000, charged) == 700
    assert held_out.training_size(1, charged) == 1
    assert held_out.training_size(1000, study_of()) == 1000
