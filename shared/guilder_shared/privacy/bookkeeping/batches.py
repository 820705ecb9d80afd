"""Batches in passes: which rows are computed at once, and what stands in for rows.

This module knows no model and draws nothing secret.

Review, mathematics: a pass holds whole units. Isolated, every pass has one public
height, filled up with zeros whose losses count nothing; a unit of more rows than that
has passes of its own.
Review, crash order: in memory only.
"""

from typing import Any

import torch
from torch import Tensor, nn

from guilder_shared.privacy.bookkeeping.parts import Units

Inputs = Tensor | tuple[Tensor, ...]
Chunk = tuple[Tensor | slice, Units]


def num_rows(inputs: Inputs) -> int:
    """How many rows a batch has."""
    first = inputs[0] if isinstance(inputs, tuple) else inputs
    return first.shape[0]


def take(value: Any, rows: Tensor | slice) -> Any:
    """The given rows of a tensor, or of each in a tuple."""
    if isinstance(value, tuple):
        return tuple(take(x, rows) for x in value)
    if isinstance(rows, Tensor):
        rows = rows.to(value.device)
    return value[rows]


def zeros(like: Any, num: int) -> Any:
    """So many rows of zeros, in the shape and dtype of `like`'s."""
    if isinstance(like, tuple):
        return tuple(zeros(x, num) for x in like)
    return like.new_zeros(num, *like.shape[1:])


def filled(value: Any, missing: int) -> Any:
    """The rows, and zeros behind them, in memory of its own if anything is missing."""
    if isinstance(value, tuple):
        return tuple(filled(x, missing) for x in value)
    if not missing:
        return value
    rows = zeros(value, len(value) + missing)
    rows[: len(value)] = value
    return rows


def on(value: Any, device: torch.device) -> Any:
    """The rows on a device; a copy from pinned memory is not waited for."""
    if isinstance(value, tuple):
        return tuple(on(x, device) for x in value)
    return value.to(device, non_blocking=True)


def pinned(value: Any) -> Any:
    """The rows in memory that a card reads by itself; needs CUDA."""
    if isinstance(value, tuple):
        return tuple(pinned(x) for x in value)
    return value.pin_memory()


def masked(losses: Tensor, missing: int) -> Tensor:
    """The losses, those of the last rows without a gradient."""
    if not missing or losses.dim() != 1:
        return losses
    mask = torch.ones_like(losses)
    mask[-missing:] = 0.0
    return losses * mask


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's output."""
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def made_up(like: Any, num: int, generator: torch.Generator, *, below: int = 2) -> Any:
    """Random rows: numbers within 1 of 0, or whole numbers below `below`."""
    if isinstance(like, tuple):
        return tuple(made_up(x, num, generator, below=below) for x in like)
    shape = (num, *like.shape[1:])
    if like.is_floating_point():
        found = torch.rand(shape, generator=generator, dtype=like.dtype) * 2 - 1
    else:
        found = torch.randint(below, shape, generator=generator).to(like.dtype)
    return found.to(like.device)


def chunks(rows: int, units: Tensor | None, at_once: int) -> list[Chunk]:
    """Rows to compute at once, whole units together.

    Args:
        rows: How many there are; positive.
        units: Whose row it is, any whole numbers, shape (rows,); None where each row
            is a unit.
        at_once: Most rows, unless a single unit has more.
    """
    if units is None:
        starts = range(0, rows, at_once)
        ends = [min(s + at_once, rows) for s in starts]
        return [(slice(s, e), Units(e - s)) for s, e in zip(starts, ends, strict=True)]
    found: list[Chunk] = []
    units = units.cpu()
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


def pieces(rows: Tensor, chosen: Tensor | slice, at_once: int) -> tuple[Tensor, ...]:
    """The chosen rows, so many at once; all of them without a copy or a view."""
    whole = isinstance(chosen, slice) and chosen == slice(0, rows.shape[0])
    some = rows if whole else rows[chosen]
    return (some,) if some.shape[0] <= at_once else torch.split(some, at_once)
