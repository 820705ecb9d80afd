"""A row alone: what one row contributes may not depend on its neighbours, to the bit.

Matrix kernels round a row differently by the height of the matrix and by the row's
place in memory. A server that sends weights which cancel can make that last bit decide
the whole gradient; then one record more moves many other records' gradients. So every
pass of an isolated step has the same public number of rows, filled up with rows that
count nothing, and the kernels of this machine are tried on made-up rows before they see
a real one. This module clips nothing and draws no noise. It imports torch.

Review, mathematics. With passes of constant height, and kernels that give a row the
same bits at every place, what enters the sum for a unit is a function of its rows and
of public numbers alone; the sum itself is float64 (`bookkeeping.parts`), so it moves by
at most C (1 + s) when a unit comes or goes. Where the trial fails, passes hold one unit
each: slower, and true by construction. Public: shapes, rate, public size.
Review, crash order: all in memory; nothing is sent or written here.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from guilder_shared.privacy.bookkeeping import batches, memory
from guilder_shared.privacy.bookkeeping.parts import Units

if TYPE_CHECKING:
    from guilder_shared.privacy.bookkeeping.engine import BookKeeping

Losses = Callable[[Any, Any], Tensor]

PASS_NUMBERS = 1 << 26  # numbers that a pass keeps: 256 MiB of float32
MAX_PASS_ROWS = 4096
_STEP = 64  # a multiple of every vector loop's length, unrolled
_LIGHT = 1 << 20  # numbers of a pass below which a row more costs next to nothing
_LARGE = 1 << 18  # numbers compared in one trial, above which few trials suffice
_TRIALS, _FEW_TRIALS = 8, 2  # two kernels agree on a random row in less than half

_tried: dict[tuple[object, ...], bool] = {}


def pass_rows(
    engine: "BookKeeping",
    losses: Losses,
    like: tuple[Any, Any],
    *,
    expected: float,
    asked: int | None = None,
) -> int:
    """Rows in every pass: public, and safe on this machine.

    Args:
        engine: Isolated; its weights are changed for the trial and put back.
        losses: The recipe's, one loss a row.
        like: Inputs and targets of any number of rows: shapes and dtypes count.
        expected: Rows of a usual batch, public.
        asked: Rows that the caller wants instead, public.

    Returns:
        Enough for most batches within memory's bound; 1 where this machine's kernels
        let a row's place change what it contributes. Half as often as this machine's
        memory is too small for the trial.
    """
    rows = asked or _wanted(_kept_by_row(engine, losses, like), expected)
    while True:
        key = _key(engine, losses, like, rows)
        try:
            if key not in _tried:
                _tried[key] = rows == 1 or _is_isolated(engine, losses, like, rows)
            return rows if _tried[key] else 1
        except (RuntimeError, MemoryError) as error:
            if rows == 1 or not memory.ran_out(error):
                raise
        rows //= 2


def bits(
    engine: "BookKeeping", losses: Losses, like: tuple[Any, Any], rows: int
) -> int:
    """What made-up rows enter with on this machine, to the bit, as a number.

    Args:
        engine: Isolated; its weights are changed for the trial and put back.
        losses: The recipe's, one loss a row.
        like: As for `pass_rows`.
        rows: Of a pass.

    Returns:
        0 or more, below 2**62; the same where kernels round alike.
    """
    generator = torch.Generator().manual_seed(rows)
    found = hashlib.sha256()
    with _made_up_weights(engine) as randomize:
        randomize(generator)
        for x in _entering(engine, losses, _batch(engine, like, rows, generator)):
            found.update(x.contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return int.from_bytes(found.digest()[:8], "big") >> 2


def _key(
    engine: "BookKeeping", losses: Losses, like: tuple[Any, Any], rows: int
) -> tuple[object, ...]:
    return (
        rows,
        losses,
        engine.autocast,
        repr(engine.model),
        len(engine.model._forward_pre_hooks),  # which may give rows another layout
        *((p.shape, p.dtype, str(p.device)) for p in engine.model.parameters()),
        *((x.shape[1:], x.dtype) for x in _tensors(like)),
        torch.get_num_threads(),
    )


def _kept_by_row(engine: "BookKeeping", losses: Losses, like: tuple[Any, Any]) -> int:
    """Numbers held for a row: what two rows of zeros keep.

    Not half of it: autograd holds about as much again between the layers.
    """
    return sum(x.numel() for x in _entering(engine, losses, batches.zeros(like, 2)))


def _wanted(kept: int, expected: float) -> int:
    """Rows of a pass, from public numbers: memory stays flat, little is filled in."""
    most = max(1, min(MAX_PASS_ROWS, PASS_NUMBERS // max(1, kept)))
    enough = expected + 3 * math.sqrt(expected)  # nearly every Poisson batch
    if most >= _STEP and enough * kept <= 2 * _LIGHT:
        return min(most // _STEP, math.ceil(enough / _STEP)) * _STEP
    # heavy rows: passes of a quarter of a batch, so that an eighth is filled in
    few = max(8, min(most, int(expected / 4)))
    return 1 << (min(most, few).bit_length() - 1)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    else:
        for one in value:
            yield from _tensors(one)


def _is_isolated(
    engine: "BookKeeping", losses: Losses, like: tuple[Any, Any], rows: int
) -> bool:
    """Whether made-up rows enter with the same bits one place further.

    In every second trial half of the rows around them are zeros as well.
    """
    generator = torch.Generator().manual_seed(rows)
    trials = done = 0
    with _made_up_weights(engine) as randomize:
        while trials < _TRIALS:
            randomize(generator)
            batch = _batch(engine, like, rows, generator)
            kept = torch.ones(rows, dtype=torch.bool)
            if done % 2:
                kept[::2] = False
            here = _entering(engine, losses, batch)
            there = _entering(engine, losses, _moved(batch, kept))
            if not _same(here, there, kept):
                return False
            large = sum(x.numel() for x in here) >= _LARGE
            trials += _TRIALS // _FEW_TRIALS if large else 1
            done += 1
    return True


def _batch(
    engine: "BookKeeping",
    like: tuple[Any, Any],
    rows: int,
    generator: torch.Generator,
) -> tuple[Any, Any]:
    tables = [m for m in engine.model.modules() if isinstance(m, nn.Embedding)]
    below = min((m.num_embeddings for m in tables), default=2)
    inputs = batches.made_up(like[0], rows, generator, below=below)
    targets = batches.made_up(like[1], rows, generator)
    if isinstance(targets, Tensor) and targets.is_floating_point():
        targets = (targets > 0).to(targets.dtype)
    return inputs, targets


def _moved(value: Any, kept: Tensor) -> Any:
    """Every row one place further, those that are not kept as zeros."""
    if isinstance(value, tuple):
        return tuple(_moved(x, kept) for x in value)
    mask = kept.to(value.device).view(-1, *[1] * (value.dim() - 1))
    return torch.where(mask, value, torch.zeros_like(value)).roll(1, 0)


def _entering(
    engine: "BookKeeping", losses: Losses, batch: tuple[Any, Any]
) -> list[Tensor]:
    """What a pass of these rows would add, rows first."""
    inputs, targets = batch
    return engine.entering(
        lambda: losses(batches.call(engine.model, inputs), targets),
        Units(batches.num_rows(inputs)),
    )


def _same(here: list[Tensor], there: list[Tensor], kept: Tensor) -> bool:
    """Whether all kept rows are the same, and most of them numbers at all."""
    finite = torch.isfinite(here[0][kept.to(here[0].device)])
    if float(finite.double().mean()) < 0.5:
        return False
    for one, other in zip(here, there, strict=True):
        places = kept.to(one.device)
        a, b = one[places], other.roll(-1, 0)[places]
        if not bool(((a == b) | (a.isnan() & b.isnan())).all()):
            return False
    return True


@contextmanager
def _made_up_weights(
    engine: "BookKeeping",
) -> Iterator[Callable[[torch.Generator], None]]:
    """Lets every trained weight be random for a while."""
    before = [p.detach().clone() for p in engine.params]

    def randomize(generator: torch.Generator) -> None:
        with torch.no_grad():
            for p in engine.params:
                scale = 1 / math.sqrt(max(1, p[0].numel() if p.dim() else 1))
                drawn = torch.randn(p.shape, generator=generator, dtype=p.dtype)
                p.copy_(drawn * scale)

    try:
        yield randomize
    finally:
        with torch.no_grad():
            for p, old in zip(engine.params, before, strict=True):
                p.copy_(old)
