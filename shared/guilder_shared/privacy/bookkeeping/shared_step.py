"""A private step of which several processes each compute a share.

This module starts no process (`training.crew`) and exchanges nothing by itself
(`privacy.shares`).

Review, mathematics: the sum is that of `PrivateStep` up to the rounding told in
`shares`; the process that leads adds the noise of one step once, and learns; the
others get its weights before the next step. Memory that runs out in one process halves
the passes of all.
Review, crash order: in memory only; what breaks in one process raises in all.
"""

from typing import Any

from torch import Tensor

from guilder_shared.privacy import isolation, witness
from guilder_shared.privacy.bookkeeping import batches, memory
from guilder_shared.privacy.bookkeeping.batches import Chunk
from guilder_shared.privacy.bookkeeping.loading import Fetch, Fetched
from guilder_shared.privacy.bookkeeping.private_step import PrivateStep
from guilder_shared.privacy.bookkeeping.sums import Sum
from guilder_shared.privacy.shares import Shares


class SharedStep(PrivateStep):
    """A step that all processes take at once, isolated.

    Args:
        shares: This process's place among them.
        args: As for `PrivateStep`.
        kwargs: As for `PrivateStep`; the same everywhere.
    """

    def __init__(self, shares: Shares, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.engine.isolated, "passes of one public height"
        self._shares = shares

    def fetched(self, rows: Tensor, fetch: Fetch, units: Tensor | None = None) -> None:
        """Take a step on rows that every process can fetch; see `PrivateStep`."""
        clip_norm = self._shares.same(self.engine.params, self.engine.clip_norm)
        self.engine.clip_norm = clip_norm
        if self._shares.leads:
            super().fetched(rows, fetch, units)
            return
        witness.begins()
        self._sum(rows, fetch, units, self._empty_sum(len(rows)))
        self.steps_taken += 1

    def _sum(
        self, rows: Tensor, fetch: Fetch, units: Tensor | None, total: Sum
    ) -> float:
        device = total.vector.device
        while True:
            if len(rows) and self._height is None:
                self.prepare(*batches.on(fetch(rows[:0]), device))
            unclipped, short = 0.0, False
            try:
                unclipped = self._add(rows, fetch, units, total)
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
                short = True
            # what the error held is free by here
            if not self._shares.anybody(short):
                return self._shares.together(total.whole(), unclipped)
            self._shrink(len(rows))
            total.clear()
            self._shares.clear()

    def _pass_rows(self, like: Fetched, asked: int | None = None) -> int:
        """A height that is safe in every process, whose kernels round alike."""

        def find(asked: int | None) -> int:
            return super(SharedStep, self)._pass_rows(like, asked)

        height = self._shares.agree(find, asked)
        bits = isolation.bits(self.engine, self.losses, like, height)
        self._shares.demand_alike(bits)
        return height

    def _chunks(self, num: int, units: Tensor | None, height: int) -> list[Chunk]:
        every = super()._chunks(num, units, height)
        return [some for n, some in enumerate(every) if self._shares.mine(n)]

    def _passed(self, total: Sum) -> None:
        self._shares.add(total.whole())
        total.clear()
