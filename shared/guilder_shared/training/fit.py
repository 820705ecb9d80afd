"""One site's part of the learning: a few private steps from the global model.

Draw, clip, noise, divide, step. This module reads no file, charges nothing and sends
nothing. It imports torch and opacus: import it lazily.

Review, mathematics: the result is a function of `local_steps` Poisson-sampled Gaussian
sums and of public constants, hence costs what `accounting.turn_event` says. All that
rows can change passes through `PrivateOptimizer`; the number of rows passes through
nothing. With mechanism "none" the schedule and the clipping are the same and the noise
is missing: what leaves is unprotected.
Review, crash order: the caller has made the turn's charge durable before it has read
`examples`, and makes the result durable before it sends it. Run again after a crash,
the turn has fresh keys and one output ever leaves.
"""

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor

from guilder_shared import tasks
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.models.registry import Weights
from guilder_shared.privacy import accounting, clipping, isolation
from guilder_shared.privacy.sampling import TurnKeys, poisson
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import device
from guilder_shared.training.descent import GradientDescent


def fit(
    weights: Weights,
    study: Study,
    plan: Plan,
    examples: Examples,
    *,
    public_size: int,
    keys: TurnKeys,
) -> Weights:
    """Train one turn and return local minus global weights.

    Data never stops a turn: rows that are not finite contribute zero, no rows at all
    give pure noise.

    Args:
        weights: The global model, float32, as `registry.check` wants it.
        study: Schedule, clip norm and recipe.
        plan: The confirmed plan; its noise is in units of the clip norm.
        examples: This site's encoded rows; none is allowed.
        public_size: The officer's figure for the rows here. The divisor is
            sample_rate x public_size; the true number is never used.
        keys: This attempt's randomness. The same keys give the same bytes on the same
            machine, whatever torch's seed and the number of cores.

    Returns:
        Float32 arrays under the names of `weights`. Private as planned.

    Raises:
        StudyError: The weights are not this study's.
        PlanError: The plan is not this study's (`accounting.check_plan`), or the model
            cannot be trained privately (`clipping.check_model`).

    Source: Abadi et al. 2016, algorithm 1.
    """
    if public_size < 1:
        raise ValueError(f"public_size must be positive, not {public_size}")
    accounting.check_plan(study, plan)  # no noise only where none was promised
    with device.one_thread():
        module = _load(weights, study)
        expected = study.training.sample_rate * public_size
        # one public height for every pass, so that no row's bits tell of another
        rows = isolation.pass_rows(
            module, tasks.recipe(study.study.recipe).losses, expected=expected
        )
        model = clipping.wrap(module)
        optimizer = clipping.PrivateOptimizer(
            GradientDescent(model.parameters(), study.training.learning_rate),
            noise_multiplier=plan.noise_multiplier or 0.0,
            clip_norm=study.privacy.clip_norm,
            divisor=expected,
            keys=keys,
        )
        _steps(model, optimizer, study, examples, keys, rows)
        return _difference(model, weights)


def _steps(
    model: GradSampleModule,
    optimizer: clipping.PrivateOptimizer,
    study: Study,
    examples: Examples,
    keys: TurnKeys,
    rows: int,
) -> None:
    training = study.training
    losses = tasks.recipe(study.study.recipe).losses
    inputs = torch.from_numpy(examples.inputs)
    targets = torch.from_numpy(examples.targets)
    for step in range(training.local_steps):
        key = keys.key("sampling", step)
        drawn = poisson(len(examples), training.sample_rate, key)  # 1 who
        if not drawn.size:
            optimizer.empty_step()
            optimizer.zero_grad()
            continue
        chunks = torch.split(torch.from_numpy(drawn), rows)
        for chunk in chunks:
            some, answers, mask = isolation.filled_up(inputs, targets, chunk, rows)
            loss = (losses(model(some), answers) * mask).sum()  # 2 how wrong
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.signal_skip_step(chunk is not chunks[-1])
            optimizer.step()  # 3 clip and sum; after the last chunk noise and learn
            optimizer.zero_grad()


def _load(weights: Weights, study: Study) -> torch.nn.Module:
    registry.check(weights, study)
    model = registry.build(study)
    # Copies: the caller's arrays stay the global model.
    state = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    model.load_state_dict(state)
    return model


def _difference(model: GradSampleModule, weights: Weights) -> Weights:
    state: dict[str, Tensor] = model._module.state_dict()
    return {
        name: np.subtract(state[name].numpy(), array, dtype=np.float32)
        for name, array in weights.items()
    }
