"""Private statistics: what one unit can move, and what comes out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guilder_shared.errors import PlanError
from guilder_shared.privacy import statistics

EDGES = (0.0, 1.0, 2.0, 5.0)
KEY = bytes(range(32))


def blocks(values: statistics.Numbers) -> list[statistics.Block]:
    return [
        statistics.count("rows", len(values)),
        statistics.histogram("by", values, EDGES),
        statistics.moments("moments", values, 0.0, 5.0),
    ]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(), st.integers(0, 4)), min_size=1, max_size=20),
    st.integers(0, 4),
    st.booleans(),
)
def test_one_unit_moves_the_joint_sum_by_at_most_one(
    rows: list[tuple[float, int]], place: int, persons: bool
) -> None:
    values = np.array([value for value, _ in rows])
    names = np.array([name for _, name in rows])
    units = names if persons else np.arange(len(rows))
    kept = units != units[place % len(rows)]

    whole = statistics.total(blocks(values), units if persons else None)
    less = statistics.total(blocks(values[kept]), units[kept] if persons else None)

    assert np.linalg.norm(whole - less) <= 1.0


def test_the_same_key_gives_the_same_release() -> None:
    values = np.linspace(0, 5, 50)

    first = statistics.release(blocks(values), 2.0, KEY)
    again = statistics.release(blocks(values), 2.0, KEY)

    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_with_many_rows_the_released_numbers_are_near_the_true_ones() -> None:
    values = np.linspace(0, 5, 100_001)

    found = statistics.release(blocks(values), 1.0, KEY)
    mean, variance = statistics.mean_and_variance(found["moments"], 0.0, 5.0)

    assert found["rows"][0] == pytest.approx(len(values), abs=20)
    assert (mean, variance) == pytest.approx((2.5, 25 / 12), abs=0.01)
    assert statistics.quantile(found["by"], EDGES, 0.5) == pytest.approx(2.5, abs=0.01)


def test_the_area_under_the_curve_counts_ties_half() -> None:
    assert statistics.auc(np.array([4.0, 0.0]), np.array([0.0, 3.0])) == 1.0
    assert statistics.auc(np.array([4.0, 2.0]), np.array([2.0, 1.0])) == 0.5


@pytest.mark.parametrize("edges", [(0.0,), (1.0, 0.0), (0.0, float("nan"))])
def test_edges_that_do_not_rise_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(PlanError, match="edges"):
        statistics.histogram("by", np.zeros(3), edges)


def test_noise_that_hides_nobody_is_refused() -> None:
    with pytest.raises(PlanError, match="noise_multiplier"):
        statistics.release(blocks(np.zeros(3)), 0.0, KEY)
