"""One private step: clip each unit's gradient, sum, add noise, divide by a constant.

The engine is Opacus' per-sample gradient hooks; sampling, noise, divisor and masking
are ours. This module draws no batch, counts no epsilon and knows no study. It imports
torch and opacus: import it lazily.

Review, mathematics. A unit's gradient is scaled to at most C' = C (1 - 2**-10) with a
float64 norm, and the sum is kept in float64, so adding or removing one unit moves the
sum by at most C (1 + s), s = 1e-3. That needs the other units' gradients to be the same
bits with and without it, whatever weights the server sends: see `isolation`. A
unit whose gradient is not finite contributes exactly zero. The divisor is
sample_rate x public size; nothing depends on how many units there are. Public: C,
noise, divisor, shapes, chunk size. Not hidden: how long a step takes.
Review, crash order: all in memory; the caller has charged the turn before the first
row is read, and nothing is sent from here.
"""

from typing import Any, Protocol, cast

import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from guilder_shared.errors import PlanError
from guilder_shared.privacy import isolation
from guilder_shared.privacy.noise import MAX_NUMBERS, add_noise, grid_for
from guilder_shared.privacy.sampling import TurnKeys

CLIP_MARGIN = 1 - 2.0**-10  # clip a little below C: rounding then stays below C (1 + s)

_BLOCK_NUMBERS = 1 << 17  # float64 numbers clipped at once: 1 MiB, stays in the cache


class Descent(Protocol):
    """The optimizer that takes the noised gradient; any of torch's fits too."""

    param_groups: list[dict[str, Any]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the last gradient."""

    def step(self) -> Any:
        """Learn from `p.grad`."""


class PrivateOptimizer(DPOptimizer):  # type: ignore[misc]  # opacus ships no types
    """Opacus' optimizer with our clipping, noise and divisor.

    The model must be wrapped by `wrap`, the loss summed over units. Call `step` after
    each backward pass and `zero_grad` after each step; `empty_step` for an empty
    batch. `signal_skip_step` before `step` only accumulates a chunk, as in Opacus.

    Args:
        optimizer: What takes the noised gradient, over all trained parameters.
        noise_multiplier: Noise on the sum in units of `clip_norm`; 0 for none.
        clip_norm: C, L2, in the gradient's units; positive and finite.
        divisor: sample_rate x public size, public.
        keys: One turn's keys; step k draws the noise of key ("noise", k).
    """

    def __init__(
        self,
        optimizer: Descent,
        *,
        noise_multiplier: float,
        clip_norm: float,
        divisor: float,
        keys: TurnKeys,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=clip_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self.divisor = divisor
        self.keys = keys
        self.steps_taken = 0
        self._total = self._zeros()

    def _zeros(self) -> Tensor:
        return torch.zeros(sum(p.numel() for p in self.params), dtype=torch.float64)

    def clip_and_accumulate(self) -> None:
        """Add this chunk's clipped gradients to the sum, in float64.

        Guarantee: one unit more or less moves the sum by at most C (1 + s) in L2. A
        unit with NaN or infinity anywhere in its gradient contributes exactly zero.

        Source: Abadi et al. 2016, algorithm 1, line "Clip gradient".
        """
        grads = cast(list[Tensor], self.grad_samples)  # each (units, *shape)
        num_units = len(grads[0])
        rows_at_once = max(1, _BLOCK_NUMBERS // len(self._total))
        for start in range(0, num_units, rows_at_once):
            block = [g[start : start + rows_at_once] for g in grads]
            self._total += _clipped_sum(
                torch.cat([g.reshape(len(g), -1) for g in block], dim=1).double(),
                self.max_grad_norm * CLIP_MARGIN,
            )

    def add_noise(self) -> None:
        """Put the noised sum into `p.grad`, float32: one keystream for all parameters.

        Guarantee: the Gaussian mechanism with standard deviation
        noise_multiplier x clip_norm, up to `noise.residue`.
        """
        total, self._total = self._total, self._zeros()
        std = self.noise_multiplier * self.max_grad_norm
        if std > 0:
            key = self.keys.key("noise", self.steps_taken)
            total = torch.from_numpy(add_noise(total.numpy(), std, key, grid_for(std)))
        self.steps_taken += 1
        parts = torch.split_with_sizes(total, [p.numel() for p in self.params])
        for p, part in zip(self.params, parts, strict=True):
            p.grad = part.reshape(p.shape).to(p.dtype)

    def scale_grad(self) -> None:
        """Divide by the public divisor, whatever the batch held."""
        for p in self.params:
            p.grad /= self.divisor

    def empty_step(self) -> None:
        """A step whose batch is empty: noise alone, charged like any other."""
        self.add_noise()
        self.scale_grad()
        self._is_last_step_skipped = False
        self.original_optimizer.step()


def _clipped_sum(grads: Tensor, clip_norm: float) -> Tensor:
    """Sum of rows scaled to at most `clip_norm`: (units, numbers) to (numbers,)."""
    norms = torch.linalg.vecdot(grads, grads).sqrt()
    finite = torch.isfinite(norms)
    if not bool(finite.all()):
        # 0 x NaN is NaN: the gradient itself must be replaced, not only its factor.
        grads = torch.where(finite[:, None], grads, 0.0)
    factors = (clip_norm / norms).clamp(max=1.0)
    return torch.where(finite, factors, 0.0) @ grads


def wrap(module: nn.Module) -> GradSampleModule:
    """The module with per-sample gradient hooks, checked; each row stands alone.

    Raises:
        PlanError: As `check_model`.
    """
    check_model(module)
    return isolation.hooked(module)


def check_model(module: nn.Module) -> None:
    """Refuse models whose per-unit gradients would not mean what is charged.

    Needs no data: call it before a study is accepted.

    Raises:
        PlanError: GLD-P020 a layer that mixes units, GLD-P021 buffers, GLD-P022 a
            trained layer without a per-unit rule, GLD-P023 a parameter used twice,
            GLD-P024 too many or no trained parameters.
    """
    for name, layer in module.named_modules():
        _check_layer(name or "model", layer)
    seen: dict[int, str] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        if id(p) in seen:
            raise PlanError(
                "GLD-P023",
                f"parameters {seen[id(p)]} and {name} are one tensor used twice.",
                why="Its per-unit gradient would be clipped as if it were two.",
                fix="Give each layer its own weights.",
            )
        seen[id(p)] = name
    num_numbers = sum(p.numel() for p in module.parameters() if p.requires_grad)
    if not 0 < num_numbers <= MAX_NUMBERS:
        raise PlanError(
            "GLD-P024",
            f"the model trains {num_numbers} numbers; 1 to {MAX_NUMBERS} can be.",
            why="The noise's arithmetic is bounded for releases of that size.",
            fix="Freeze layers, or train adapters only.",
        )


def _check_layer(name: str, layer: nn.Module) -> None:
    kind = type(layer).__name__
    if isinstance(layer, _BatchNorm):
        raise PlanError(
            "GLD-P020",
            f"layer {name} is {kind}: it mixes the rows of a batch.",
            why="One row would move the gradients of all others.",
            fix="Use GroupNorm or LayerNorm.",
        )
    if any(True for _ in layer.buffers(recurse=False)):
        raise PlanError(
            "GLD-P021",
            f"layer {name} ({kind}) keeps a buffer.",
            why="A buffer filled from rows would leave without noise.",
            fix="Make it a constant of the study or remove it.",
        )
    trained = any(p.requires_grad for p in layer.parameters(recurse=False))
    if trained and type(layer) not in GradSampleModule.GRAD_SAMPLERS:
        raise PlanError(
            "GLD-P022",
            f"layer {name} ({kind}) has no rule for per-unit gradients.",
            fix="Use layers such as Linear, Conv2d, GroupNorm, LayerNorm, Embedding.",
        )
