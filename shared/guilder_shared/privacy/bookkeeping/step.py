"""Making a private step for any model that can be trained privately.

Usable without the rest of Guilder. This module checks numbers and puts the parts
together; what a step does is in `private_step`.

Review, mathematics: see `private_step` and `engine`; what is refused here is what would
leave the range that their bounds are shown for.
Review, crash order: in memory only; nothing is read before the step is called.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from guilder_shared.errors import PlanError
from guilder_shared.privacy.adaptive import MovingClip
from guilder_shared.privacy.bookkeeping import memory
from guilder_shared.privacy.bookkeeping.autotune import fastest
from guilder_shared.privacy.bookkeeping.engine import BookKeeping
from guilder_shared.privacy.bookkeeping.private_step import PrivateStep
from guilder_shared.privacy.sampling import TurnKeys

__all__ = ["PrivateStep", "make_private_step"]


def make_private_step(
    model: nn.Module,
    losses: Callable[[Any, Any], Tensor],
    optimizer: Any,
    *,
    clip_norm: float,
    noise_multiplier: float,
    divisor: float,
    keys: TurnKeys | None = None,
    microbatch: int | None = None,
    tune: bool = True,
    isolated: bool = False,
    moving: MovingClip | None = None,
    autocast: torch.dtype | None = None,
    ahead: bool = False,
    checkpoint: bool = False,
    kind: Callable[..., PrivateStep] = PrivateStep,
) -> PrivateStep:
    """A private training step for any model that can be trained privately.

    On Linux freed memory then stays with the process for its next steps, up to 256 MiB;
    see `memory.keep_freed`.

    Args:
        model: Parameters that need no gradient stay frozen.
        losses: Outputs and targets to one loss per row, shape (rows,).
        optimizer: Over the model's trained parameters.
        clip_norm: C, L2, in the gradient's units; 1e-9 to 1e9.
        noise_multiplier: Standard deviation on the sum in units of C; 0 for none, which
            is not private.
        divisor: sample_rate x public size: public, never the batch's length.
        keys: Where noise comes from; None for the operating system, the only choice
            outside simulation.
        microbatch: Rows in every pass, None for all in one; see `PrivateStep`.
        tune: Try on made-up numbers which exact way is the fastest here. Without, and
            in isolated mode, bytes do not depend on this machine's speed.
        isolated: Needed where the weights come from somebody who may wish to learn of
            a record, such as a server: a unit's contribution is then its own whatever
            the weights are. Costs passes of one height and sums in float64. False
            where you start and train the model yourself.
        moving: A clip norm that follows the gradients' norms, made for the same
            `clip_norm`, `noise_multiplier` and `divisor`. Needs `isolated`.
        autocast: What the model computes in, `torch.bfloat16` for instance; clipping
            stays in float32 and float64.
        ahead: Fetch the next pass's rows while one computes.
        checkpoint: Compute activations again instead of keeping them: less memory,
            more time, the same result.
        kind: Another kind of step, such as `SharedStep` with its shares.

    Raises:
        PlanError: GLD-P050 a number is out of range; GLD-P020, GLD-P024, GLD-P054 the
            model cannot be trained privately; GLD-P085 `moving` without `isolated`.

    Source: Abadi et al. 2016, algorithm 1; Bu et al. 2023 for the way of computing it.
    """
    _check("clip_norm", clip_norm, 1e-9, 1e9)
    _check("noise_multiplier", noise_multiplier, 0.0, 1e6)
    _check("divisor", divisor, 1e-9, 1e15)
    if moving is not None and not isolated:
        raise PlanError(
            "GLD-P085",
            "a moving clip norm needs isolated = True.",
            why="Else a unit's rounding could tip another's over the clip norm, and "
            "the count would move by more than is accounted.",
            fix="Pass isolated=True, or a fixed clip norm.",
        )
    memory.keep_freed()
    choose = fastest if tune and not isolated else None
    engine = BookKeeping(
        model,
        clip_norm,
        choose,
        isolated=isolated,
        autocast=autocast,
        checkpoint=checkpoint,
    )
    return kind(
        engine,
        losses,
        optimizer,
        noise_multiplier=noise_multiplier,
        divisor=divisor,
        keys=keys or TurnKeys.from_os(),
        microbatch=microbatch,
        moving=moving,
        ahead=ahead,
    )


def _check(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise PlanError(
            "GLD-P050",
            f"{name} is {value!r}; {low:g} to {high:g} can be.",
            why="Outside, the promise is empty or the arithmetic not bounded.",
            fix="Take the value from the study's plan.",
        )
