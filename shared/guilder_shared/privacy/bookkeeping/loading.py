"""Rows read ahead: while one pass computes, the rows of the next are fetched.

On CUDA they are copied from pinned memory, so that the processor does not wait for the
copy. This module knows no model and chooses no rows.

Review, mathematics: the same rows are fetched in the same order, each once; when they
are fetched changes no number.
Review, crash order: in memory only; at most one pass's rows wait, and they are dropped
with the step.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import torch
from torch import Tensor

from guilder_shared.privacy.bookkeeping import batches
from guilder_shared.privacy.bookkeeping.batches import Inputs

Fetch = Callable[[Tensor], tuple[Inputs, Any]]
Fetched = tuple[Inputs, Any]


class Loader:
    """Fetches the passes of steps. Not for several threads at once.

    Args:
        device: Where the passes compute.
        ahead: Whether a second thread fetches; without, each pass waits for its rows.
    """

    def __init__(self, device: torch.device, *, ahead: bool) -> None:
        self._device, self._ahead = device, ahead
        self._pool: ThreadPoolExecutor | None = None

    def read(
        self, fetch: Fetch, pieces: Sequence[Tensor]
    ) -> Generator[Fetched, None, None]:
        """The rows of each piece, on the device, in order.

        Close it where not all are taken: what was fetched is dropped then.

        Args:
            fetch: Some rows to their inputs and targets.
            pieces: Which rows, pass by pass.
        """
        if not self._ahead or len(pieces) < 2:
            for piece in pieces:
                yield batches.on(fetch(piece), self._device)
            return
        context = copy_context()  # a self-test that looks on sees these rows too
        pool = self._pool or ThreadPoolExecutor(1, "rows")
        self._pool = pool

        def get(piece: Tensor) -> Fetched:
            return self._pinned(context.run(fetch, piece))

        coming: Future[Fetched] | None = pool.submit(get, pieces[0])
        try:
            for place in range(1, len(pieces) + 1):
                assert coming is not None
                found = coming.result()
                more = place < len(pieces)
                coming = pool.submit(get, pieces[place]) if more else None
                yield batches.on(found, self._device)
        finally:
            if coming is not None and not coming.cancel():
                coming.exception()  # waits; what failed is dropped as well

    def close(self) -> None:
        """End the thread; the object can be used again."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

    def _pinned(self, found: Fetched) -> Fetched:
        if self._device.type != "cuda":
            return found
        return batches.pinned(found[0]), batches.pinned(found[1])


def held(inputs: Inputs, targets: Any) -> tuple[Tensor, Fetch]:
    """A batch in memory, as rows to fetch: their numbers, and how they are."""
    every = torch.arange(batches.num_rows(inputs))

    def fetch(rows: Tensor) -> Fetched:
        if rows is every:
            return inputs, targets  # all, in their order
        return batches.take(inputs, rows), batches.take(targets, rows)

    return every, fetch
