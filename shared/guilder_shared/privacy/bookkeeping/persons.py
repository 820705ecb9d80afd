"""Units of several rows: one gradient of all of them, in float64.

A unit's rows are padded to the next power of two of its own number, and units of one
size are computed together. This module knows no layer.

Legend: B rows, T places, D inputs, P outputs, U units; `inputs` are (B, T, D), `grads`
(B, T, P).

Review, mathematics. A unit's gradient G = sum_t g_t a_t' over all places of its rows is
made in float64 from float32 numbers that are the rows' own; which units are beside it
moves it by 2**-53 of its terms' total M only. Its norm is never taken below 2**-10 M,
so that this stays far inside the slack however much of G cancels. How a unit is padded
and which of two ways gives its norm depends on its own number of rows.
Review, crash order: in memory only.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from guilder_shared.privacy.bookkeeping.norms import floored, ghost_square_norms
from guilder_shared.privacy.bookkeeping.parts import Units

_AT_ONCE = 1 << 21  # float64 numbers held at once: 16 MiB


def square_norms(inputs: Tensor, grads: Tensor, units: Units) -> Tensor:
    """Square norm of every unit's sum of g_t a_t': (units,), float64.

    Zero for a unit without rows; NaN or infinity for one that holds such numbers.
    """
    found = torch.zeros(units.num, dtype=torch.float64, device=inputs.device)
    for those, a, g in _alike(inputs, grads, units):
        if a.shape[1] * (a.shape[2] + g.shape[2]) < a.shape[2] * g.shape[2]:
            square = ghost_square_norms(
                torch.bmm(a, a.mT),
                torch.bmm(g, g.mT),
                partial(_square, a, g),
                width=max(a.shape[2], g.shape[2]),
            )
        else:
            lengths = torch.linalg.vector_norm(a, dim=2)
            lengths *= torch.linalg.vector_norm(g, dim=2)
            square = floored(_square(a, g, slice(None)), lengths.sum(1).square())
        found[those] = square
    return found


def products(inputs: Tensor, grads: Tensor, units: Units) -> Tensor:
    """Every unit's sum of g_t a_t': (units, P, D), float64."""
    shape = (units.num, grads.shape[2], inputs.shape[2])
    found = torch.zeros(shape, dtype=torch.float64, device=inputs.device)
    for those, a, g in _alike(inputs, grads, units):
        found[those] = torch.bmm(g.mT, a)
    return found


def _square(a: Tensor, g: Tensor, units: Tensor | slice) -> Tensor:
    return torch.bmm(g[units].mT, a[units]).square().sum((1, 2))


def _alike(
    inputs: Tensor, grads: Tensor, units: Units
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Units of one padded size, with their inputs and gradients: (U, L x T, .)."""
    assert units.of_row is not None
    counts = torch.bincount(units.of_row, minlength=units.num)
    first = torch.cumsum(counts, 0) - counts
    length, most = 1, int(counts.max()) if len(counts) else 0
    while length < 2 * most:
        fitting = (counts > length // 2) & (counts <= length)
        those = torch.nonzero(fitting).squeeze(1)
        size = length * inputs.shape[1] * (inputs.shape[2] + grads.shape[2])
        for some in torch.split(those, max(1, _AT_ONCE // max(1, size))):
            place = torch.arange(length, device=some.device)
            taken = place < counts[some, None]
            rows = torch.where(taken, first[some, None] + place, 0)
            pair = (x[rows].double() for x in (inputs, grads))
            a, g = (
                torch.where(taken[:, :, None, None], x, 0.0).flatten(1, 2) for x in pair
            )
            yield some, a, g
        length *= 2
