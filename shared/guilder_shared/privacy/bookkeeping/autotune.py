"""Which exact way is the fastest here: tried once for each layer and shape.

The trial runs on made-up numbers of the layer's shapes, so that the choice knows no
data. It never changes a result beyond rounding; where the bytes must be the same on
every machine, leave it out: each rule then chooses by counting operations.

Review, mathematics: every strategy of a rule computes the same norms and sums.
Review, crash order: in memory only.
"""

import threading
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from guilder_shared.privacy.bookkeeping.parts import Part, Units
from guilder_shared.privacy.bookkeeping.sums import Into

_MOST_ROWS = 64  # a trial's batch: enough to see what is faster
_REPEATS = 3
# A byte that is kept for the sum is fresh memory in a step, though not in a trial: 1.2
# microseconds a page, half of what was measured.
_FRESH_S = 3e-10
# A byte that is held until the sum costs nobody time. It is priced, so that of two ways
# about as fast the smaller is taken: 5 MiB less are worth 10 ms of a layer.
_HELD_S = 2e-9
_GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")

_lock = threading.Lock()
_chosen: dict[tuple[object, ...], str] = {}


def fastest(part: Part) -> str | None:
    """The strategy that was the fastest in a trial on made-up numbers.

    Args:
        part: Of its tensors shapes, dtype and device alone are looked at.

    Returns:
        None where there is nothing to choose, or for units of several rows.
    """
    rule, layer, names = type(part), part.layer, part.names
    inputs, grads, possible = part.inputs, part.grads, part.strategies()
    if part.units.of_row is not None or len(possible) == 1:
        return None
    rows = min(_MOST_ROWS, 1 << (len(grads) - 1).bit_length())
    key = (
        rule,
        names,
        *(str(getattr(layer, name, None)) for name in _GEOMETRY),
        (rows, *inputs.shape[1:]),
        (rows, *grads.shape[1:]),
        grads.dtype,
        str(grads.device),
        torch.get_num_threads(),
    )
    with _lock:  # one trial at a time: two would slow each other
        if key not in _chosen:
            made_up = [
                torch.randn(rows, *x.shape[1:], dtype=x.dtype, device=x.device)
                for x in (inputs, grads)
            ]
            times = {
                strategy: _time_s(rule, layer, names, made_up, strategy)
                for strategy in possible
            }
            _chosen[key] = min(times, key=times.__getitem__)
        return _chosen[key]


def _time_s(
    rule: type[Part],
    layer: Any,
    names: frozenset[str],
    made_up: list[Tensor],
    strategy: str,
) -> float:
    inputs, grads = made_up
    rows, best, kept, held = len(grads), float("inf"), 0, 0
    into = {
        name: Into(torch.zeros_like(p, requires_grad=False), empty=True)
        for name, p in layer.named_parameters()
        if name in names
    }
    alone = torch.get_num_threads() == 1 and not grads.is_cuda
    clock = time.thread_time if alone else time.perf_counter  # others slow the wall's
    for _ in range(_REPEATS):
        _wait(grads)
        start = clock()
        part = rule(layer, names, inputs, grads, Units(rows), strategy)
        factors = part.square_norms().clamp(max=1.0)
        kept, held = _num_bytes(part.kept.values()), _num_bytes(part.entering())
        part.weighted_sum(factors, into)
        _wait(grads)
        best = min(best, clock() - start)
    return best + _FRESH_S * kept + _HELD_S * held


def _num_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _wait(like: Tensor) -> None:
    if like.is_cuda:
        torch.cuda.synchronize(like.device)
