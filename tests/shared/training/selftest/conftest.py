"""A study to test, its plan, and keys that are always the same."""

from collections.abc import Callable
from typing import Any

import pytest

from guilder_shared.messages import Plan
from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.training import selftest
from guilder_shared.training.selftest import Passed

MLP = {"name": "mlp", "hidden": [16, 8], "prior": 0.1}


def keys_from(seed: int) -> Callable[[], TurnKeys]:
    """Keys that differ from call to call and not from run to run."""
    turns = iter(range(10**9))

    def make() -> TurnKeys:
        return TurnKeys.seeded(seed, site="s", round_no=1, turn_no=next(turns))

    return make


def plan_for(study: Study, noise_multiplier: float = 1.5) -> Plan:
    turns = study.training.rounds + study.aggregation.spare_turns
    return Plan(noise_multiplier, turns, SENSITIVITY_SLACK)


@pytest.fixture
def tested() -> Callable[..., Passed]:
    """Run the self-test with keys of a seed."""

    def run(study: Study, *, seed: int = 1) -> Passed:
        keys = keys_from(seed)
        return selftest.run(study, plan_for(study), public_size=300, make_keys=keys)

    return run


@pytest.fixture
def persons(study_of: Callable[..., Study]) -> Study:
    return of_persons(study_of, sample_rate=0.2, local_steps=2)


def of_persons(make: Callable[..., Study], **options: Any) -> Study:
    """A study that protects persons, of whom three records count."""
    parts = make(**options).model_dump(mode="json", by_alias=True, exclude_none=True)
    parts["data"]["person"] = "who"
    parts["privacy"] |= {"unit": "person", "max_records": 3}
    return Study.model_validate(parts)


@pytest.fixture
def small(study_of: Callable[..., Study]) -> Study:
    return study_of(model=MLP, sample_rate=0.1, local_steps=4)
