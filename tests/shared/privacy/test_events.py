"""Events: the documented form and no other."""

from typing import Any

import pytest

from guilder_shared.errors import PlanError
from guilder_shared.privacy.events import (
    Leaf,
    gaussian_event,
    merge,
    self_composed,
    unprotected_event,
)

GAUSSIAN = gaussian_event(1.5)
SAMPLED = gaussian_event(1.5, sample_rate=0.1)


def test_equal_steps_merge_however_they_are_nested() -> None:
    nested = self_composed(self_composed(SAMPLED, 5), 4)

    cases = merge([(nested, 2), (SAMPLED, 1), (GAUSSIAN, 3)])

    assert cases == ((Leaf(1.5, 0.1, 41), Leaf(1.5, 1.0, 3)),)


def test_a_full_batch_is_a_plain_gaussian() -> None:
    assert gaussian_event(2.0, sample_rate=1.0) == gaussian_event(2.0)
    assert gaussian_event(2.0)["event"] == "gaussian"


def test_one_unprotected_event_makes_all_unprotected() -> None:
    assert merge([(SAMPLED, 1), (self_composed(unprotected_event(), 3), 1)]) is None


def test_no_events_are_no_leaves() -> None:
    assert merge([]) == ((),)


@pytest.mark.parametrize(
    "event",
    [
        {},
        [],
        "gaussian",
        None,
        {"event": "laplace", "scale": 1.0},
        {
            "event": "poisson-sampled",
            "sampling_probability": 0.5,
            "of": {"event": "laplace", "noise_multiplier": 1.0},
        },
        {"event": "gaussian"},
        {"event": "gaussian", "noise_multiplier": 1.0, "more": 1},
        {"event": "gaussian", "noise_multiplier": 0.0},
        {"event": "gaussian", "noise_multiplier": -1.0},
        {"event": "gaussian", "noise_multiplier": 1e-9},
        {"event": "gaussian", "noise_multiplier": float("nan")},
        {"event": "gaussian", "noise_multiplier": float("inf")},
        {"event": "gaussian", "noise_multiplier": "1"},
        {"event": "gaussian", "noise_multiplier": True},
        {"event": "gaussian", "noise_multiplier": 10**400},
        {"event": "poisson-sampled", "sampling_probability": 0.0, "of": GAUSSIAN},
        {"event": "poisson-sampled", "sampling_probability": 1.1, "of": GAUSSIAN},
        {"event": "poisson-sampled", "sampling_probability": 0.5, "of": SAMPLED},
        {
            "event": "poisson-sampled",
            "sampling_probability": 0.5,
            "of": unprotected_event(),
        },
        self_composed(GAUSSIAN, 0),
        self_composed(GAUSSIAN, -3),
        self_composed(GAUSSIAN, 10**9),
        self_composed(self_composed(GAUSSIAN, 10**5), 10**5),
        {"event": "self-composed", "count": 2.0, "of": GAUSSIAN},
        {"event": "self-composed", "count": True, "of": GAUSSIAN},
        {"event": "none-protected", "of": GAUSSIAN},
    ],
)
def test_a_malformed_event_is_refused_and_never_counted_as_cheap(event: Any) -> None:
    with pytest.raises(PlanError, match="cannot be accounted") as caught:
        merge([(event, 1)])

    assert caught.value.error_id == "GLD-P003"


def test_an_endless_nest_is_refused() -> None:
    event = GAUSSIAN
    for _ in range(5000):
        event = self_composed(event, 1)

    with pytest.raises(PlanError):
        merge([(event, 1)])


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_a_count_that_is_no_count_is_refused(count: Any) -> None:
    with pytest.raises(PlanError):
        merge([(GAUSSIAN, count)])
