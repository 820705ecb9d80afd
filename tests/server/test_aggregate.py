"""The sum of a round."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guilder_server import aggregate, learners
from guilder_server.learners import Learner
from guilder_shared.errors import IntegrityError, StudyError
from guilder_shared.messages import Weights

MODEL: Weights = {"w": np.zeros((2, 3), np.float32), "b": np.ones(3, np.float32)}
SHAPES = {name: w.shape for name, w in MODEL.items()}


def update_of(value: float) -> Weights:
    return {n: np.full(w.shape, value, np.float32) for n, w in MODEL.items()}


def fold_all(updates: list[tuple[str, Weights]], weights: dict[str, int]) -> Weights:
    total = aggregate.empty(SHAPES)
    for site, update in updates:
        aggregate.fold(total, update, weight=weights[site])
    model, _ = Learner(learners.add, {}).learn(MODEL, total, {})
    return model


def test_the_step_is_the_mean_weighted_by_public_size() -> None:
    weights = aggregate.weigh({"a": 3000, "b": 1000})

    model = fold_all([("a", update_of(1.0)), ("b", update_of(5.0))], weights)

    assert model["w"] == pytest.approx(np.full((2, 3), 2.0), abs=1e-3)
    assert model["b"] == pytest.approx(np.full(3, 3.0), abs=1e-3)


def test_the_same_replies_give_the_same_bytes_in_any_order() -> None:
    random = np.random.default_rng(1)
    weights = aggregate.weigh({"a": 20_000, "b": 17_000, "c": 900, "d": 33})
    updates = [
        (
            site,
            {n: random.normal(0, 7, w.shape).astype("f4") for n, w in MODEL.items()},
        )
        for site in weights
    ]

    results = {
        b"".join(w.tobytes() for w in fold_all(list(order), weights).values())
        for order in itertools.permutations(updates)
    }

    assert len(results) == 1


@given(st.floats(-1023, 1023, width=32), st.integers(1, 2**14))
def test_folding_loses_less_than_one_unit_in_the_last_place(
    value: float, weight: int
) -> None:
    total = aggregate.empty(SHAPES)

    aggregate.fold(total, update_of(value), weight=weight)

    mean = total.sums["b"][0] / (aggregate.SCALE * weight)
    assert abs(mean - value) <= 0.5 / aggregate.SCALE


def test_the_largest_sum_of_the_most_sites_does_not_overflow() -> None:
    sizes = {f"site-{i}": 10**9 for i in range(aggregate.MOST_SITES)}
    weights = aggregate.weigh(sizes)
    largest = float(np.nextafter(np.float32(1024), np.float32(0)))

    model = fold_all([(site, update_of(-largest)) for site in sizes], weights)

    assert model["w"] == pytest.approx(np.full((2, 3), -largest))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1024.0, -1e30])
def test_an_update_out_of_range_is_refused(value: float) -> None:
    update = update_of(1.0)
    aggregate.check(update)
    update["b"][1] = value

    with pytest.raises(IntegrityError) as caught:
        aggregate.check(update)

    assert caught.value.error_id == "GLD-I045"


def test_more_sites_than_the_sum_can_hold_are_refused_before_the_first_round() -> None:
    with pytest.raises(StudyError, match="513 sites"):
        aggregate.weigh({f"site-{i}": 1 for i in range(513)})
