"""Bugs planted into the protection of persons, each caught by the self-test."""

from collections.abc import Callable

import numpy as np
import pytest

from guilder_shared.errors import PlanError
from guilder_shared.study import Study
from guilder_shared.training import draws, fit
from guilder_shared.training.draws import Draw, Sampler
from guilder_shared.training.selftest import Passed

Run = Callable[..., Passed]
Plant = Callable[[pytest.MonkeyPatch], None]


def records_of_a_person_clipped_one_by_one(plant: pytest.MonkeyPatch) -> None:
    draw = Sampler.draw
    plant.setattr(
        fit,
        "Sampler",
        type(
            "Apart",
            (Sampler,),
            {"draw": lambda self, keys, step: Draw(draw(self, keys, step).rows)},
        ),
    )


def no_cap(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(
        draws,
        "_among_the_lowest",
        lambda words, _units, _most: np.ones(len(words), dtype=bool),
    )


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (records_of_a_person_clipped_one_by_one, "one unit moves the sum by"),
        (no_cap, "more records of a person"),
    ],
)
def test_a_bug_in_protecting_persons_is_caught_and_named(
    tested: Run,
    persons: Study,
    monkeypatch: pytest.MonkeyPatch,
    plant: Plant,
    told: str,
) -> None:
    plant(monkeypatch)

    with pytest.raises(PlanError) as caught:
        tested(persons)

    assert told in caught.value.why
