"""One site's part of the learning: a few private steps from the global model.

Draw, clip, noise, divide, step. This module reads no file, charges nothing and sends
nothing. It imports torch: import it lazily.

Review, mathematics: the result is a function of `local_steps` Poisson-sampled Gaussian
sums and of public constants, hence costs what `accounting.turn_event` says. All that
rows can change passes through `PrivateStep`, isolated because the weights are the
server's; the number of rows passes through nothing. A site's own contribution is the
mean over its public size, so clip norm and noise of the sum are that many times larger
and the divisor takes it out again: noise over sensitivity is as planned. With
mechanism "none" the schedule and the clipping are the same and the noise is missing:
what leaves is unprotected.
Review, crash order: the caller has made the turn's charge durable before it has read
`examples`, and makes the result durable before it sends it. Run again after a crash,
the turn has fresh keys and one output ever leaves.
"""

from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guilder_shared import tasks
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.models.registry import Weights
from guilder_shared.privacy import accounting, witness
from guilder_shared.privacy.adaptive import MovingClip
from guilder_shared.privacy.bookkeeping.batches import Inputs
from guilder_shared.privacy.bookkeeping.shared_step import SharedStep
from guilder_shared.privacy.bookkeeping.step import PrivateStep, make_private_step
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.privacy.shares import Shares
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import crew, device, optimizers, pull
from guilder_shared.training.augment import Copies, Losses, MeanLosses, repeated
from guilder_shared.training.draws import Draw, Sampler


def fit(
    weights: Weights,
    study: Study,
    plan: Plan,
    examples: Examples,
    *,
    public_size: int,
    keys: TurnKeys,
    shift: Weights | None = None,
) -> Weights:
    """Train one turn and return local minus global weights.

    Data never stops a turn: rows that are not finite contribute zero, no rows at all
    give pure noise.

    Args:
        weights: The global model, float32, as `registry.check` wants it.
        study: Schedule, clip norm and recipe.
        plan: The confirmed plan; its noise is in units of the clip norm.
        examples: This site's encoded rows; none is allowed.
        public_size: The officer's figure for the persons here, if they are the units,
            else for the rows. The divisor is sample_rate x public_size; the true
            number is never used.
        keys: This attempt's randomness. The same keys give the same bytes on the same
            machine, whatever torch's seed and the number of cores.
        shift: Added to each noised gradient, under the names of `weights`: a function
            of earlier releases and of what the server sent (`variates`). None: nothing.

    Returns:
        Float32 arrays under the names of `weights`. Private as planned.

    Raises:
        StudyError: The weights are not this study's.
        PlanError: The plan is not this study's (`accounting.check_plan`), or the model
            cannot be trained privately (`make_private_step`).

    Source: Abadi et al. 2016, algorithm 1.
    """
    if public_size < 1:
        raise ValueError(f"public_size must be positive, not {public_size}")
    accounting.check_plan(study, plan)  # no noise only where none was promised
    given: Any = {"public_size": public_size, "keys": keys}
    with device.turn():
        turn = (weights, study, plan, examples)
        with crew.sharing(*turn, **given) as shares:
            module = train(*turn, **given, shares=shares, shift=shift)
        return _difference(module, weights)


def train(
    weights: Weights,
    study: Study,
    plan: Plan,
    examples: Examples,
    *,
    public_size: int,
    keys: TurnKeys,
    shares: Shares | None,
    shift: Weights | None = None,
) -> torch.nn.Module:
    """Take a turn's steps, or this process's share of them.

    Args are those of `fit`, which checked them.

    Args:
        weights: As there.
        study: As there.
        plan: As there.
        examples: As there.
        public_size: As there.
        keys: As there.
        shares: Among which processes; None for this one alone.
        shift: As there; of no effect where this process does not lead.

    Returns:
        The module that has learnt; of a process that does not lead, one of no meaning.
    """
    module = registry.load(weights, study).to(device.current().device)
    if device.current().channels_last:
        module.register_forward_pre_hook(_channels_innermost)
    own_mean = public_size if study.privacy.unit == "site" else 1
    divisor = study.training.sample_rate * public_size
    optimizer = optimizers.make(module.parameters(), study.training)
    optimizer.pull = pull.of(module, study.aggregation.proximal, shift)
    step = make_private_step(
        module,
        _losses(study),
        optimizer,
        clip_norm=study.privacy.clip_norm * own_mean,
        noise_multiplier=plan.noise_multiplier or 0.0,
        divisor=divisor,
        keys=keys,
        isolated=True,  # the weights are the server's
        moving=_moving(study, plan, divisor, own_mean),
        autocast=device.dtype(),
        ahead=device.current().prefetch,
        checkpoint=device.current().checkpoint,
        kind=PrivateStep if shares is None else partial(SharedStep, shares),
    )
    with closing(step):  # its threads end with the turn
        _steps(step, study, examples, keys)
    return module


def _steps(step: PrivateStep, study: Study, examples: Examples, keys: TurnKeys) -> None:
    sampler, copies = Sampler(study, examples), Copies.of(study)
    for number in range(study.training.local_steps):
        draw = sampler.draw(keys, number)  # 1 who
        if copies is not None:
            draw = repeated(draw, copies.num)
        key = keys.key("copies", number)

        def fetch(
            places: Tensor, draw: Draw = draw, key: bytes = key
        ) -> tuple[Inputs, Tensor]:
            chosen = draw.rows[places.numpy()]
            witness.read(chosen)
            inputs, targets = examples.inputs[chosen], examples.targets[chosen]
            if copies is not None:
                inputs = copies.make(inputs, places.numpy(), key)
            return torch.from_numpy(inputs), torch.from_numpy(targets)

        units = None if draw.units is None else torch.from_numpy(draw.units)
        step.optimizer.noise_std = step.noise_std
        step.fetched(torch.arange(len(draw)), fetch, units)  # 2 learn, privately


def _channels_innermost(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Images in the layout that convolutions then keep; other rows as they are.

    Copied, because images of one channel count as both layouts until they are.
    """
    layout = torch.channels_last
    return tuple(x.clone(memory_format=layout) if x.dim() == 4 else x for x in args)


def _losses(study: Study) -> Losses:
    losses, augment = tasks.recipe(study.study.recipe).losses, study.training.augment
    return losses if augment is None else MeanLosses(losses, augment.copies)


def _moving(
    study: Study, plan: Plan, divisor: float, own_mean: int
) -> MovingClip | None:
    if study.training.adaptive_clip is None:
        return None
    return MovingClip(
        study.privacy.clip_norm * own_mean,
        study.training.adaptive_clip,
        planned=plan.noise_multiplier or 0.0,
        divisor=divisor / own_mean,  # units expected in a step
    )


def _difference(model: torch.nn.Module, weights: Weights) -> Weights:
    state: dict[str, Tensor] = model.state_dict()
    return {
        name: np.subtract(state[name].cpu().numpy(), array, dtype=np.float32)
        for name, array in weights.items()
    }
