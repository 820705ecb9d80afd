"""A turn's training: the promise's arithmetic, and data that cannot stop it."""

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # no stubs

from guilder_shared.errors import PlanError, StudyError
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.models.registry import Weights
from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.bookkeeping.engine import CLIP_MARGIN
from guilder_shared.privacy.sampling import TurnKeys, poisson
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.fit import fit

Make = Callable[..., Study]

FALSE_ALARM = 1e-6
KEYS = TurnKeys.seeded(4, site="site-1", round_no=1)
MLP = {"name": "mlp", "hidden": [16, 8], "prior": 0.1}
NONE = {"mechanism": "none"}


def rows(num: int, num_columns: int = 3) -> Examples:
    rng = np.random.default_rng(1)
    inputs = rng.uniform(-1, 1, (num, num_columns)).astype(np.float32)
    return Examples(inputs, (inputs[:, 0] > 0.2).astype(np.float32))


def plan_for(study: Study, noise_multiplier: float = 1.5) -> Plan:
    turns = study.training.rounds + study.aggregation.spare_turns
    private = study.privacy.mechanism != "none"
    return Plan(noise_multiplier if private else None, turns, SENSITIVITY_SLACK)


def flat(weights: Weights) -> NDArray[np.float32]:
    return np.concatenate([weights[name].reshape(-1) for name in sorted(weights)])


def trained(
    study: Study,
    examples: Examples,
    *,
    keys: TurnKeys = KEYS,
    public_size: int = 100,
    weights: Weights | None = None,
) -> Weights:
    return fit(
        weights or registry.initial(study),
        study,
        plan_for(study),
        examples,
        public_size=public_size,
        keys=keys,
    )


def test_the_same_keys_give_the_same_bytes_whatever_torch_is_told(
    study_of: Make,
) -> None:
    study = study_of(model=MLP, sample_rate=0.2, local_steps=5)
    threads = torch.get_num_threads()
    results = []

    for seed, num_threads in ((1, 1), (2, 2)):
        torch.manual_seed(seed)
        torch.set_num_threads(num_threads)
        results.append(flat(trained(study, rows(200))).tobytes())
        assert torch.get_num_threads() == num_threads
    torch.set_num_threads(threads)

    assert results[0] == results[1]


def test_another_process_gives_the_same_bytes(study_of: Make) -> None:
    study = study_of(model=MLP, sample_rate=0.2, local_steps=3)
    script = (
        "import sys, numpy as np\n"
        "from guilder_shared.models import registry\n"
        "from guilder_shared.messages import Plan\n"
        "from guilder_shared.privacy.sampling import TurnKeys\n"
        "from guilder_shared.study import Study\n"
        "from guilder_shared.tasks import Examples\n"
        "from guilder_shared.training.fit import fit\n"
        "study = Study.from_canonical(sys.stdin.buffer.read())\n"
        "x = np.random.default_rng(1).uniform(-1, 1, (200, 3)).astype(np.float32)\n"
        "out = fit(registry.initial(study), study, Plan(1.5, 18, 1e-3),\n"
        "    Examples(x, (x[:, 0] > 0.2).astype(np.float32)), public_size=100,\n"
        "    keys=TurnKeys.seeded(4, site='site-1', round_no=1))\n"
        "print(b''.join(out[n].tobytes() for n in sorted(out)).hex())\n"
        "assert 'torch._dynamo' not in sys.modules  # a second of start, for nothing\n"
    )

    ran = subprocess.run(
        [sys.executable, "-c", script],
        input=study.canonical(),
        stdout=subprocess.PIPE,
        check=True,
    )

    assert (
        ran.stdout.strip().decode() == flat(trained(study, rows(200))).tobytes().hex()
    )


def test_turns_in_several_threads_give_the_bytes_of_turns_in_one(
    study_of: Make,
) -> None:
    study = study_of(model=MLP, sample_rate=0.3, local_steps=4)
    keys = [TurnKeys.seeded(4, site=f"site-{i}", round_no=1) for i in range(6)]
    alone = [flat(trained(study, rows(150), keys=k)).tobytes() for k in keys]

    with ThreadPoolExecutor(3) as pool:
        together = list(
            pool.map(lambda k: flat(trained(study, rows(150), keys=k)).tobytes(), keys)
        )

    assert together == alone


def test_keys_of_the_operating_system_never_give_the_same_result(
    study_of: Make,
) -> None:
    study = study_of()
    results = set()

    for _ in range(5):
        torch.manual_seed(7)
        update = trained(study, rows(50), keys=TurnKeys.from_os())
        results.add(flat(update).tobytes())

    assert len(results) == 5


def by_hand(study: Study, examples: Examples, public_size: int) -> NDArray[np.float64]:
    """One full-batch step of clipped logistic regression, in float64."""
    start = registry.initial(study)
    weight, bias = (start[n].astype(np.float64) for n in ("0.weight", "0.bias"))
    logits = examples.inputs @ weight.T + bias
    error = 1 / (1 + np.exp(-logits)) - examples.targets[:, None]
    grads = np.hstack([error, error * examples.inputs])
    limit = study.privacy.clip_norm * CLIP_MARGIN
    norms = np.linalg.norm(grads, axis=1, keepdims=True)
    total = (grads * np.minimum(1, limit / norms)).sum(axis=0)
    step: NDArray[np.float64] = -study.training.learning_rate * total / public_size
    return step


def test_without_noise_a_step_is_clipped_gradient_descent(study_of: Make) -> None:
    study = study_of(privacy=NONE)

    update = trained(study, rows(77), public_size=90)

    assert flat(update) == pytest.approx(by_hand(study, rows(77), 90), abs=1e-6)


def test_noise_is_all_that_private_training_adds(study_of: Make) -> None:
    noiseless = flat(trained(study_of(privacy=NONE, num_columns=400), rows(77, 400)))

    private = flat(trained(study_of(num_columns=400), rows(77, 400)))

    noise = (private - noiseless).astype(np.float64) * 100 / 0.5 / 1.5
    z = float(stats.norm.isf(FALSE_ALARM / 4))
    assert abs(noise.mean()) < z / math.sqrt(noise.size)
    # the two studies start from different weights by a little: only the spread counts
    assert abs(noise.var() - 1) < z * math.sqrt(2 / noise.size) + 0.02


def test_an_empty_site_sends_noise_of_the_planned_size(study_of: Make) -> None:
    study = study_of(num_columns=2000, sample_rate=0.5, local_steps=4)

    update = flat(trained(study, rows(0, 2000), public_size=60)).astype(np.float64)

    expected = 4 * (1.5 * 0.5 / (0.5 * 60)) ** 2  # steps x (noise / divisor)^2
    z = float(stats.norm.isf(FALSE_ALARM / 2))
    assert abs(update.var() / expected - 1) < z * math.sqrt(2 / update.size) + 1e-3


def test_the_divisor_is_public_and_the_number_of_rows_is_not_used(
    study_of: Make,
) -> None:
    study = study_of(privacy=NONE)
    once = rows(40)
    twice = Examples(np.tile(once.inputs, (2, 1)), np.tile(once.targets, 2))

    single, double = flat(trained(study, once)), flat(trained(study, twice))

    assert double == pytest.approx(2 * single, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
def test_rows_that_are_not_finite_change_nothing(study_of: Make, bad: float) -> None:
    study = study_of(privacy=NONE, model=MLP)
    clean = rows(60)
    dirty = Examples(
        np.vstack([clean.inputs, np.full((2, 3), bad, np.float32)]),
        np.append(clean.targets, [0, 1]).astype(np.float32),
    )

    update = flat(trained(study, dirty))

    assert np.isfinite(update).all()
    if not math.isfinite(bad):
        assert update == pytest.approx(flat(trained(study, clean)), abs=1e-6)


def test_a_site_of_bad_rows_only_still_sends_noise(study_of: Make) -> None:
    study = study_of(local_steps=3)
    bad = Examples(np.full((30, 3), np.nan, np.float32), np.ones(30, np.float32))

    update = flat(trained(study, bad))
    empty = flat(trained(study, rows(0)))

    assert np.array_equal(update, empty)


def test_a_large_batch_in_chunks_is_the_batch(
    study_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(privacy=NONE, model=MLP)
    whole = flat(trained(study, rows(500)))
    monkeypatch.setattr("guilder_shared.privacy.isolation.MAX_PASS_ROWS", 64)

    parts = flat(trained(study, rows(500)))

    assert parts == pytest.approx(whole, abs=1e-6)


def test_the_global_model_is_not_touched(study_of: Make) -> None:
    study = study_of(model=MLP)
    weights = registry.initial(study)
    before = flat(weights).copy()

    update = trained(study, rows(20), weights=weights)

    assert np.array_equal(flat(weights), before)
    assert set(update) == set(weights)
    assert all(update[n].dtype == np.float32 for n in update)
    assert all(update[n].shape == weights[n].shape for n in update)


def test_weights_that_explode_still_give_the_promised_noise(study_of: Make) -> None:
    study = study_of(model=MLP)
    hostile = {n: np.full_like(a, 1e30) for n, a in registry.initial(study).items()}

    update = trained(study, rows(50), weights=hostile)

    assert np.isfinite(flat(update)).all()


def test_training_without_noise_needs_a_study_that_says_so(study_of: Make) -> None:
    study = study_of()

    with pytest.raises(PlanError) as caught:
        fit(
            registry.initial(study),
            study,
            Plan(None, 18, SENSITIVITY_SLACK),
            rows(10),
            public_size=10,
            keys=KEYS,
        )

    assert caught.value.error_id == "GLD-P005"


def test_weights_of_another_study_are_refused(study_of: Make) -> None:
    other = registry.initial(study_of(num_columns=4))

    with pytest.raises(StudyError):
        trained(study_of(), rows(10), weights=other)


@pytest.mark.parametrize("public_size", [0, -5])
def test_a_public_size_that_is_none_is_refused(
    study_of: Make, public_size: int
) -> None:
    with pytest.raises(ValueError, match="public_size"):
        trained(study_of(), rows(10), public_size=public_size)


def test_training_warns_of_nothing(study_of: Make) -> None:
    weights = registry.initial(study_of(model=MLP))
    for array in weights.values():
        array.setflags(write=False)  # as arrays that came over the wire are

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained(study_of(model=MLP), rows(20), weights=weights)

    assert [str(w.message) for w in caught] == []


def test_both_mechanisms_draw_the_same_batches(
    study_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[int]] = []

    def spy(*args: Any) -> Any:
        indices = poisson(*args)
        drawn.append(indices.tolist())
        return indices

    monkeypatch.setattr("guilder_shared.training.draws.poisson", spy)
    trained(study_of(sample_rate=0.3, local_steps=4), rows(100))
    trained(study_of(sample_rate=0.3, local_steps=4, privacy=NONE), rows(100))

    assert drawn[:4] == drawn[4:]
    assert len({str(d) for d in drawn}) == 4
