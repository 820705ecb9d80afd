"""A row alone: what one row contributes may not depend on its neighbours, to the bit.

Matrix kernels round a row differently by the height of the matrix and by the row's
place in memory. A server that sends weights which cancel can make that last bit decide
the whole gradient; then one record more moves many other records' gradients. So every
pass here has the same public number of rows, filled up with rows that count nothing,
and the kernels of this machine are tried on made-up rows before they see a real one.
This module clips nothing and draws no noise. It imports torch and opacus.

Review, mathematics. With passes of constant height, and kernels that give a row the
same bits at every place, a row's gradient is a function of that row and of public
numbers alone; the clipped sum then moves by at most C when a row comes or goes (its
float64 rounding is far inside s). Where the trial fails, passes hold one row each:
slower, and true by construction. Public: shapes, rate, public size.
Review, crash order: all in memory; nothing is sent or written here.
"""

import copy
import math
import warnings
from collections.abc import Callable

import torch
from opacus.grad_sample import GradSampleModule, register_grad_sampler
from opacus.grad_sample.linear import compute_linear_grad_sample
from torch import Tensor, nn

Losses = Callable[[Tensor, Tensor], Tensor]

CHUNK_NUMBERS = 1 << 21  # per-unit gradient numbers held at once: 8 MiB of float32
MAX_CHUNK_ROWS = 4096
_STEP = 64  # a multiple of every vector loop's length, unrolled
_NARROW = 16  # below this many outputs, matrix kernels look at a row's address
_TRIALS = 8  # two kernels agree on a random row in less than half of the cases

_tried: dict[tuple[object, ...], bool] = {}


class NarrowLinear(nn.Linear):
    """A linear layer of few outputs, summed row by row instead of by a kernel."""

    def forward(self, rows: Tensor) -> Tensor:
        """(rows, inputs) to (rows, outputs)."""
        return (rows.unsqueeze(1) * self.weight).sum(-1) + self.bias


register_grad_sampler(NarrowLinear)(compute_linear_grad_sample)


def narrow(module: nn.Module) -> nn.Module:
    """The same module, its narrow linear layers replaced; weights and names are kept.

    A single output stays: its kernel treats every row alike once heights are equal.
    """
    for name, layer in module.named_children():
        if type(layer) is nn.Linear and 1 < layer.out_features < _NARROW:
            same = NarrowLinear(layer.in_features, layer.out_features)
            same.load_state_dict(layer.state_dict())
            setattr(module, name, same)
        else:
            narrow(layer)
    return module


def hooked(module: nn.Module) -> GradSampleModule:
    """The module with per-sample gradient hooks; a row's place does not matter."""
    # The inputs are data and need no gradient; torch warns about exactly that.
    warnings.filterwarnings(
        "ignore",
        message="Full backward hook is firing when gradients are computed with "
        "respect to module outputs since no inputs require gradients",
        category=UserWarning,
    )
    return GradSampleModule(narrow(module), loss_reduction="sum")


def pass_rows(module: nn.Module, losses: Losses, *, expected: float) -> int:
    """Rows in every pass of a turn: public, and safe on this machine.

    Args:
        module: Before `clipping.wrap`; it is left alone.
        losses: The recipe's, one loss a row.
        expected: sample_rate x public size.

    Returns:
        Enough for most batches within memory's bound; 1 where this machine's kernels
        let a row's place change its gradient.
    """
    rows = _wanted(chunk_rows(module), expected)
    key = (rows, losses, *((type(m), *_shapes(m)) for m in module.modules()))
    if key not in _tried:
        _tried[key] = rows == 1 or _is_isolated(module, losses, rows)
    return rows if _tried[key] else 1


def chunk_rows(module: nn.Module) -> int:
    """Most rows to pass at once so that memory stays flat; from shapes alone."""
    num_numbers = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return max(1, min(MAX_CHUNK_ROWS, CHUNK_NUMBERS // max(1, num_numbers)))


def filled_up(
    inputs: Tensor, targets: Tensor, chosen: Tensor, rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The chosen rows, then zeros up to `rows`, and a mask that is 1 for the chosen.

    A loss times the mask gives a filled-in row a gradient of exactly zero.

    Args:
        inputs: Shape (all, inputs).
        targets: Shape (all,).
        chosen: Row numbers, at most `rows` of them.
        rows: The height of every pass.
    """
    num = len(chosen)
    some = torch.zeros(rows, inputs.shape[1])
    answers, mask = torch.zeros(rows), torch.zeros(rows)
    some[:num], answers[:num], mask[:num] = inputs[chosen], targets[chosen], 1.0
    return some, answers, mask


def _wanted(most: int, expected: float) -> int:
    if most < _STEP:
        return 1 << (most.bit_length() - 1)
    enough = expected + 3 * math.sqrt(expected)  # nearly every Poisson batch
    return min(most // _STEP, math.ceil(enough / _STEP)) * _STEP


def _shapes(module: nn.Module) -> tuple[torch.Size, ...]:
    return tuple(p.shape for p in module.parameters(recurse=False))


def _is_isolated(module: nn.Module, losses: Losses, rows: int) -> bool:
    """Whether made-up rows have the same gradient, to the bit, one place further."""
    generator = torch.Generator().manual_seed(rows)
    trial = hooked(copy.deepcopy(module))
    for _ in range(_TRIALS):
        width = _randomize(trial, generator)
        inputs = torch.rand(rows, width, generator=generator) * 2 - 1
        targets = (torch.rand(rows, generator=generator) < 0.5).float()
        here = _gradients(trial, losses, inputs, targets)
        there = _gradients(trial, losses, inputs.roll(1, 0), targets.roll(1, 0))
        if not torch.equal(here.roll(1, 0), there):
            return False
    return True


def _randomize(model: nn.Module, generator: torch.Generator) -> int:
    """Give every weight a random value; returns the first layer's inputs."""
    width = 0
    with torch.no_grad():
        for p in model.parameters():
            width = width or p.shape[-1]
            scale = 1 / math.sqrt(p.shape[-1])
            p.copy_(torch.randn(p.shape, generator=generator) * scale)
    return width


def _gradients(
    model: GradSampleModule, losses: Losses, inputs: Tensor, targets: Tensor
) -> Tensor:
    """Each row's gradient as a turn computes it: (rows, numbers)."""
    rows = len(inputs)
    (losses(model(inputs), targets) * torch.ones(rows)).sum().backward()  # type: ignore[no-untyped-call]
    grads = [p.grad_sample.reshape(rows, -1) for p in model.parameters()]
    model.zero_grad()
    return torch.cat(grads, dim=1)
