"""One private step: clip, sum, add noise, divide by a constant, learn.

Usable without the rest of Guilder. This module draws no batch and counts no epsilon:
the caller samples (Poisson) and accounts.

Review, mathematics. For weights that nobody chose against it, the step is the Gaussian
mechanism on a sum that one unit moves by at most clip_norm x (1 + s); the divisor is
public; the optimizer sees nothing else. An empty batch is noise alone. Not hidden: how
long a step takes. With units of several rows the caller has capped the rows of a unit,
if a cap was promised.
Review, crash order: in memory only; charge before the rows are read.

Not yet for weights that an adversary chose: a row's rounding may still depend on the
rows beside it, and weights made to cancel turn that into a whole gradient (about ten
times clip_norm was measured). `isolation` prevents this in the client's turns, which
do not use this engine until it does here too; see docs/decisions/012.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from guilder_shared.errors import PlanError
from guilder_shared.privacy.bookkeeping.autotune import fastest
from guilder_shared.privacy.bookkeeping.engine import BookKeeping
from guilder_shared.privacy.bookkeeping.parts import Units
from guilder_shared.privacy.noise import add_noise_in_place, grid_for
from guilder_shared.privacy.sampling import TurnKeys

Inputs = Tensor | tuple[Tensor, ...]


class PrivateStep:
    """Call it with a batch; the model has learnt privately when it returns.

    Args:
        engine: Clips and sums.
        losses: Outputs and targets to one loss per row.
        optimizer: Takes the noised gradient from `p.grad`.
        noise_multiplier: Noise on the sum in units of `clip_norm`; 0 for none.
        divisor: sample_rate x public size, public.
        keys: One turn's keys; step k draws the noise of key ("noise", k).
        microbatch: Rows in every pass, filled up with zeros that count nothing; None
            for the whole batch in one pass. The result does not depend on it beyond
            rounding. With it no row's rounding depends on how many others there are,
            which matters where somebody else chose the weights: see `isolation`.
    """

    def __init__(
        self,
        engine: BookKeeping,
        losses: Callable[[Any, Any], Tensor],
        optimizer: Any,
        *,
        noise_multiplier: float,
        divisor: float,
        keys: TurnKeys,
        microbatch: int | None = None,
    ) -> None:
        self.engine, self.losses, self.optimizer = engine, losses, optimizer
        self.noise_multiplier, self.divisor = noise_multiplier, divisor
        self.keys, self.microbatch = keys, microbatch
        self.steps_taken = 0
        self._checked = False
        self._total: Tensor | None = None
        self._grads = [torch.empty_like(p) for p in engine.params]

    def __call__(
        self, inputs: Inputs, targets: Any, units: Tensor | None = None
    ) -> None:
        """Take one step.

        Args:
            inputs: Rows of the batch, or a tuple of tensors for a model of several
                inputs; no rows at all give a step of noise.
            targets: A tensor or tuple of tensors, row by row.
            units: For persons: the person of each row, any whole numbers, shape
                (rows,). None if each row is a unit.

        Raises:
            PlanError: The model or the losses cannot be clipped, see
                `BookKeeping.add_clipped`. None depends on a row's value.
        """
        total = self._total  # its pages cost more than its arithmetic: kept
        self._total = None
        total = self.engine.zeros() if total is None else total.zero_()
        self._add(inputs, targets, units, total)
        self.release(total)
        self._total = total

    def clipped_sum(
        self, inputs: Inputs, targets: Any, units: Tensor | None = None
    ) -> Tensor:
        """The sum before noise, (numbers,) float64. Secret: it must not leave."""
        total = self.engine.zeros()
        self._add(inputs, targets, units, total)
        return total

    def _add(
        self, inputs: Inputs, targets: Any, units: Tensor | None, total: Tensor
    ) -> None:
        num = len(inputs[0]) if isinstance(inputs, tuple) else len(inputs)
        if not num:
            return
        if not self._checked:
            self.engine.check_rows(
                lambda n: _call(self.engine.model, _synthetic(inputs, n))
            )
            self._checked = True
        for chosen, chunk_units in _chunks(num, units, self.microbatch):
            missing = max(0, (self.microbatch or 0) - chunk_units.rows)
            rows = _filled(_take(inputs, chosen), missing)
            goals = _filled(_take(targets, chosen), missing)
            losses = partial(self._losses, rows, goals, missing)
            self.engine.add_clipped(losses, total, chunk_units.and_rows(missing))

    def _losses(self, rows: Inputs, goals: Any, missing: int) -> Tensor:
        return _masked(self.losses(_call(self.engine.model, rows), goals), missing)

    def release(self, total: Tensor) -> None:
        """Add noise, divide, learn. `total` is overwritten and may be used once."""
        std = self.noise_multiplier * self.engine.clip_norm
        if std > 0:
            key = self.keys.key("noise", self.steps_taken)
            drawn = total.cpu()
            add_noise_in_place(
                drawn.numpy(), std, key, grid_for(std), threads=torch.get_num_threads()
            )
            if drawn is not total:
                total.copy_(drawn)
        self.steps_taken += 1
        views = self.engine.split(total)
        for p, view, grad in zip(self.engine.params, views, self._grads, strict=True):
            p.grad = grad.copy_(view).div_(self.divisor)
        self.optimizer.step()
        for p in self.engine.params:
            p.grad = None


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
) -> PrivateStep:
    """A private training step for any model that can be trained privately.

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
        tune: Try on made-up numbers which exact way is the fastest here. Without, bytes
            do not depend on this machine's speed.

    Raises:
        PlanError: GLD-P050 a number is out of range; GLD-P020, GLD-P024, GLD-P054 the
            model cannot be trained privately.

    Source: Abadi et al. 2016, algorithm 1; Bu et al. 2023 for the way of computing it.
    """
    _check("clip_norm", clip_norm, 1e-9, 1e9)
    _check("noise_multiplier", noise_multiplier, 0.0, 1e6)
    _check("divisor", divisor, 1e-9, 1e15)
    return PrivateStep(
        BookKeeping(model, clip_norm, fastest if tune else None),
        losses,
        optimizer,
        noise_multiplier=noise_multiplier,
        divisor=divisor,
        keys=keys or TurnKeys.from_os(),
        microbatch=microbatch,
    )


def _check(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise PlanError(
            "GLD-P050",
            f"{name} is {value!r}; {low:g} to {high:g} can be.",
            why="Outside, the promise is empty or the arithmetic not bounded.",
            fix="Take the value from the study's plan.",
        )


def _synthetic(like: Inputs, num: int) -> Inputs:
    if isinstance(like, tuple):
        return tuple(x.new_zeros(num, *x.shape[1:]) for x in like)
    return like.new_zeros(num, *like.shape[1:])


def _take(value: Any, rows: Tensor | slice) -> Any:
    if isinstance(value, tuple):
        return tuple(_take(x, rows) for x in value)
    if isinstance(rows, Tensor):
        rows = rows.to(value.device)
    return value[rows]


def _filled(value: Any, missing: int) -> Any:
    """The rows, and zeros behind them."""
    if not missing:
        return value
    if isinstance(value, tuple):
        return tuple(_filled(x, missing) for x in value)
    return torch.cat([value, value.new_zeros(missing, *value.shape[1:])])


def _masked(losses: Tensor, missing: int) -> Tensor:
    """The losses, those of the last rows without a gradient."""
    if not missing or losses.dim() != 1:
        return losses
    mask = torch.ones_like(losses)
    mask[-missing:] = 0.0
    return losses * mask


def _call(model: nn.Module, inputs: Any) -> Any:
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _chunks(
    rows: int, units: Tensor | None, microbatch: int | None
) -> list[tuple[Tensor | slice, Units]]:
    """Rows to compute at once, whole units together."""
    at_once = microbatch or rows
    if units is None:
        starts = range(0, rows, at_once)
        ends = [min(s + at_once, rows) for s in starts]
        return [(slice(s, e), Units(e - s)) for s, e in zip(starts, ends, strict=True)]
    found: list[tuple[Tensor | slice, Units]] = []
    order = torch.argsort(units, stable=True)
    _, counts = torch.unique_consecutive(units[order], return_counts=True)
    sizes, first, begin = counts.tolist(), 0, 0
    while first < len(sizes):
        last, length = first + 1, sizes[first]
        while last < len(sizes) and length + sizes[last] <= at_once:
            length += sizes[last]
            last += 1
        of_row = torch.repeat_interleave(counts[first:last])
        found.append((order[begin : begin + length], Units(last - first, of_row)))
        first, begin = last, begin + length
    return found
