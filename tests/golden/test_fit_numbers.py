"""Golden numbers of one seeded private turn: a refactor may not move them.

Kernels of another processor may round float32 differently, so the numbers are compared
to 1e-5 here, a two-hundredth of one grid of the noise; identical bytes on one machine
are tested in `tests/shared/training`.
"""

from typing import Any

import numpy as np
import pytest

from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.fit import fit


@pytest.fixture
def study() -> Study:
    whole: dict[str, Any] = {
        "schema": 1,
        "study": {
            "name": "golden",
            "recipe": "tabular-classification",
            "purpose": "Hold still",
        },
        "data": {
            "kind": "table",
            "dataset": "d",
            "target": "y",
            "columns": {
                name: {"kind": "number", "low": -1, "high": 1} for name in "abc"
            },
        },
        "model": {"name": "mlp", "hidden": [4], "prior": 0.1},
        "training": {
            "rounds": 8,
            "local_steps": 6,
            "sample_rate": 0.1,
            "learning_rate": 2.0,
        },
        "privacy": {
            "unit": "record",
            "mechanism": "site-noise",
            "epsilon": 3,
            "delta": 1e-5,
            "clip_norm": 0.5,
        },
        "aggregation": {"min_sites": 1, "spare_turns": 2},
        "evaluation": {"on": "none"},
    }
    return Study.model_validate(whole)


def test_one_seeded_turn_gives_the_golden_update(study: Study) -> None:
    rng = np.random.default_rng(1)
    inputs = rng.uniform(-1, 1, (300, 3)).astype(np.float32)
    examples = Examples(inputs, (inputs[:, 0] > 0.2).astype(np.float32))
    start = {
        name: np.linspace(-0.5, 0.5, int(np.prod(shape)), dtype=np.float32).reshape(
            shape
        )
        for name, shape in registry.shapes(study).items()
    }

    update = fit(
        start,
        study,
        Plan(1.25, 10, 1e-3),
        examples,
        public_size=300,
        keys=TurnKeys.seeded(11, site="site-1", round_no=2, turn_no=3),
    )

    numbers = np.concatenate([update[name].reshape(-1) for name in sorted(update)])
    assert numbers == pytest.approx(np.array(GOLDEN), abs=1e-5)


GOLDEN = [
    0.500000,
    0.052083,
    -0.095833,
    -0.304167,
    -0.214583,
    -0.245833,
    -0.058333,
    -0.212500,
    0.108333,
    -0.102083,
    0.279167,
    -0.152083,
    -0.064583,
    0.622917,
    -0.170833,
    -0.410417,
    -0.839583,
    -0.375000,
    -0.131250,
    0.141667,
    0.412500,
]
