"""From a clipped sum to gradients that may be seen: noise, one rounding, one division.

The noise is drawn on a core that is idle, while the step computes. This module clips
nothing, accounts nothing and steps no optimizer. It imports torch.

Review, mathematics: what comes out is `noise.add_noise` of the sum, to the bit, divided
by a public number in the gradient's dtype. It is the same for every number of threads.
The sum itself is wiped once it is released.
Review, crash order: in memory only; a failure leaves no noise behind for another sum.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from guilder_shared.privacy import noise
from guilder_shared.privacy.ahead import NoiseAhead, Order
from guilder_shared.privacy.normals import Floats

_NUMPY_TOO = (torch.float32, torch.float64)


class Release:
    """Releases one model's sums, one a step. Not for several threads at once.

    Args:
        params: What the sum's numbers belong to, in its order.

    Attributes:
        further: Numbers of the last sum behind those of the parameters, noised, not
            divided; float64.
    """

    def __init__(self, params: Sequence[nn.Parameter]) -> None:
        self._params = params
        dtypes = {p.dtype for p in params}
        (dtype,) = dtypes if len(dtypes) == 1 else (torch.float64,)
        self._dtype = dtype if dtype in _NUMPY_TOO else torch.float64
        self._num = sum(p.numel() for p in params)
        self._flat: Tensor | None = None
        self._views: tuple[Tensor, list[Tensor]] | None = None
        self._ahead = NoiseAhead()
        self.further: Floats = np.empty(0)

    def begin(self, order: Order | None) -> None:
        """Start to draw a step's noise, where a core is idle."""
        if order is not None and _idle_cores():
            self._ahead.start(order)

    def gradients(
        self, total: Tensor, order: Order | None, divisor: float
    ) -> list[Tensor]:
        """The noised and divided sum, in the shape of each parameter.

        Args:
            total: (numbers,). In the gradients' dtype it becomes them, if it lies in
                the processor's memory; else it is zero afterwards. In float64 it may
                hold more numbers than the parameters have.
            order: Which noise, of as many numbers; None for none, which is not private.
            divisor: Public, positive.

        Returns:
            Tensors that are overwritten by the next call.

        Raises:
            ValueError: The noise of this step was used before.
        """
        # Threads are worth starting for some milliseconds of work.
        many = total.shape[0] >= noise.MANY
        threads = torch.get_num_threads() + bool(_idle_cores()) if many else 1
        drawn = None if order is None else self._ahead.take(order, threads=threads)
        grid = 1.0 if order is None else noise.grid_for(order.std)
        held = total.cpu().numpy()  # its own memory on the CPU
        flat = self._room(total)
        out, kept = flat.numpy(), flat is total

        def work(first: int, last: int) -> None:
            for part in noise.rounded_at_once(len(out), first, last):
                some, grads = held[part], out[part]
                # to the gradient's dtype first, then divided in it
                if drawn is None:
                    grads[:] = some
                else:
                    noise.round_sum(some, drawn[part], grid, grads)
                grads /= divisor
                if not kept:
                    some.fill(0.0)

        noise.in_parts(work, len(out), threads)
        self.further = held[len(out) :].astype(np.float64)
        if len(self.further):
            if drawn is not None:
                noise.round_sum(self.further, drawn[len(out) :], grid, self.further)
            held[len(out) :].fill(0.0)
        if total.device.type != "cpu":
            total.zero_()
        return self._split(flat)

    def close(self) -> None:
        """End the thread; noise that was drawn is dropped."""
        self._views = None
        self._ahead.close()

    def _room(self, total: Tensor) -> Tensor:
        """Where to put the gradients: one vector, a pass over it is one over each."""
        here = total.is_cpu and total.dtype == self._dtype
        if here and total.shape[0] == self._num:
            return total
        if self._flat is None:
            self._flat = torch.empty(self._num, dtype=self._dtype)
        return self._flat

    def _split(self, flat: Tensor) -> list[Tensor]:
        if self._views is not None and self._views[0] is flat:
            return self._views[1]
        here = flat.to(self._params[0].device)
        parts = torch.split_with_sizes(here, [p.numel() for p in self._params])
        pairs = zip(parts, self._params, strict=True)
        grads = [x.view(p.shape).to(p.dtype) for x, p in pairs]
        if here is flat and all(p.dtype == flat.dtype for p in self._params):
            self._views = flat, grads  # the same memory in the next step
        return grads


def _idle_cores() -> int:
    """Cores of this process that torch's threads leave idle."""
    known = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return max(0, cores - torch.get_num_threads())
