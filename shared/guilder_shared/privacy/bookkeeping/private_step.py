"""One private step: clip, sum, add noise, divide by a constant, learn.

This module draws no batch and counts no epsilon: the caller samples (Poisson) and
accounts; `step.make_private_step` makes steps.

Review, mathematics. The step is the Gaussian mechanism on a sum that one unit moves by
at most clip_norm x (1 + s); the divisor is public; the optimizer sees nothing else. An
empty batch is noise alone. Where somebody else chose the weights, a server for
instance, this needs `isolated`: without, weights made to cancel turn a neighbour's
rounding into a whole gradient (ten times clip_norm was measured). Not hidden: how long
a step takes. With units of several rows the caller has capped the rows of a unit, if a
cap was promised.
Review, crash order: in memory only; charge before the rows are read.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guilder_shared.errors import DeviceError
from guilder_shared.privacy import isolation, witness
from guilder_shared.privacy.adaptive import MovingClip, halves
from guilder_shared.privacy.ahead import Order
from guilder_shared.privacy.bookkeeping import batches, memory
from guilder_shared.privacy.bookkeeping.batches import Chunk, Inputs
from guilder_shared.privacy.bookkeeping.engine import BookKeeping
from guilder_shared.privacy.bookkeeping.loading import Fetch, Fetched, Loader, held
from guilder_shared.privacy.bookkeeping.parts import SUM_UNITS
from guilder_shared.privacy.bookkeeping.sums import Sum
from guilder_shared.privacy.release import Release
from guilder_shared.privacy.sampling import TurnKeys

_log = logging.getLogger(__name__)


class PrivateStep:
    """Call it with a batch; the model has learnt privately when it returns.

    Args:
        engine: Clips and sums.
        losses: Outputs and targets to one loss per row.
        optimizer: Takes the noised gradient from `p.grad`.
        noise_multiplier: Noise on the sum in units of `clip_norm`; 0 for none.
        divisor: sample_rate x public size, public.
        keys: One turn's keys; step k draws the noise of key ("noise", k).
        microbatch: Rows in every pass, filled up with zeros that count nothing. None
            for the whole batch in one pass; isolated, for what memory holds and most
            batches need (`isolation.pass_rows`), by public numbers. The result does
            not depend on it beyond rounding; it is halved where memory runs out.
        moving: Moves the clip norm after each step, by a count that is noised beside
            the sum; the noise multiplier is then that of both together.
        ahead: Fetch the next pass's rows while one computes; the same rows.
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
        moving: MovingClip | None = None,
        ahead: bool = False,
    ) -> None:
        self.engine, self.losses, self.optimizer = engine, losses, optimizer
        self.moving = moving
        if moving is not None:
            engine.clip_norm = moving.clip_norm
            noise_multiplier = moving.noise_multiplier
        self.noise_multiplier, self.divisor = noise_multiplier, divisor
        self.keys, self.microbatch = keys, microbatch
        self.steps_taken = 0
        self._height: int | None = None
        # between steps: their pages cost more than their arithmetic
        self._sums: dict[torch.dtype, Sum] = {}
        self._release = Release(engine.params)
        self._ordered: Order | None = None
        self._loader = Loader(engine.params[0].device, ahead=ahead)

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
        self.fetched(*held(inputs, targets), units)

    def fetched(self, rows: Tensor, fetch: Fetch, units: Tensor | None = None) -> None:
        """Take one step on rows that are read pass by pass: memory stays flat.

        Args:
            rows: Which rows, shape (rows,); none at all give a step of noise.
            fetch: Some of the rows to their inputs and targets; of no rows it gives
                tensors of length 0 that tell shapes and dtypes.
            units: As for a call, one for each of `rows`.

        Raises:
            PlanError: As a call.
        """
        witness.begins()
        self._release.begin(self._order())  # the noise is drawn while we compute
        total = self._empty_sum(rows.shape[0])
        unclipped = self._sum(rows, fetch, units, total)
        self.release(total.whole())
        if self.moving is not None:
            self.moving.learn(unclipped, self.keys.key("count", self.steps_taken))
            self.engine.clip_norm = self.moving.clip_norm

    def clipped_sum(
        self, inputs: Inputs, targets: Any, units: Tensor | None = None
    ) -> Tensor:
        """The sum before noise, (numbers,) float64. Secret: it must not leave."""
        rows, fetch = held(inputs, targets)
        total = self._empty_sum(rows.shape[0])
        self._sum(rows, fetch, units, total)
        return total.whole().to(torch.float64, copy=True)

    def _empty_sum(self, num_rows: int) -> Sum:
        """In the parameters' dtype where so few rows may be added in it."""
        engine = self.engine
        few = num_rows <= SUM_UNITS and not engine.isolated
        dtype = engine.params[0].dtype if few else torch.float64
        total = self._sums.get(dtype)
        if total is None:
            numbers = engine.zeros().to(dtype)
            total = self._sums[dtype] = Sum(engine.params, numbers, empty=True)
        total.clear()
        return total

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise in the next step's gradient; public."""
        return self.noise_multiplier * self.engine.clip_norm / self.divisor

    def prepare(self, inputs: Inputs, targets: Any) -> int:
        """Check the model on made-up rows and fix the height of passes.

        Args:
            inputs: Only shapes, dtypes and devices are looked at; no rows suffice.
            targets: As `inputs`.

        Returns:
            Rows in a pass, 0 where a batch is one pass. 1 in isolated mode where the
            kernels of this machine let a row's place change its bits.

        Raises:
            PlanError: As a call.
        """
        if self._height is None:
            engine = self.engine
            engine.check_rows(
                lambda n: batches.call(engine.model, batches.zeros(inputs, n))
            )
            self._height = self.microbatch or 0
            if engine.isolated:
                self._height = self._pass_rows((inputs, targets))
        return self._height

    def _pass_rows(self, like: Fetched, asked: int | None = None) -> int:
        """Rows in every isolated pass."""
        return isolation.pass_rows(
            self.engine,
            self.losses,
            like,
            expected=self.divisor,
            asked=asked or self.microbatch,
        )

    def _sum(
        self, rows: Tensor, fetch: Fetch, units: Tensor | None, total: Sum
    ) -> float:
        """As `_add`, in passes of half the height where memory was not enough."""
        while True:
            try:
                return self._add(rows, fetch, units, total)
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
            # what the error held is free by here
            self._shrink(len(rows))
            total.clear()  # some units are in it already

    def _shrink(self, num: int) -> None:
        height = self._height or num
        if height == 1:
            raise DeviceError(
                "GLD-G003",
                "this machine's memory is too small for one row at a time.",
                fix="Give it more memory, or take a smaller model.",
            )
        self.microbatch, self._height = height // 2, None
        _log.warning(
            "out of memory with passes of %d rows; %d from here on", height, height // 2
        )

    def _add(
        self, rows: Tensor, fetch: Fetch, units: Tensor | None, total: Sum
    ) -> float:
        """Add to the sum; returns `adaptive.halves` of the batch."""
        unclipped = 0.0
        num = rows.shape[0]  # len of a tensor costs ten times as much
        if not num:
            return unclipped
        device = total.vector.device
        if self._height is None:
            self.prepare(*batches.on(fetch(rows[:0]), device))
        height = self._height or num
        todo = [
            (there.on(device), batches.pieces(rows, chosen, height))
            for chosen, there in self._chunks(num, units, height)
        ]
        every = [piece for _, pieces in todo for piece in pieces]
        with closing(self._loader.read(fetch, every)) as loaded:
            for some, pieces in todo:
                if len(pieces) == 1:
                    losses, missing = self._pass(next(loaded))
                    counted = self.engine.add_to(total, losses, some.and_rows(missing))
                else:  # one unit
                    passes = self._passes(loaded, pieces)
                    counted = self.engine.add_unit(passes, total)
                if self.moving is not None:
                    unclipped += halves(counted[: some.num])
                self._passed(total)
        return unclipped

    def _chunks(self, num: int, units: Tensor | None, height: int) -> list[Chunk]:
        """What this process computes of a batch."""
        return batches.chunks(num, units, height)

    def _passed(self, total: Sum) -> None:
        """After each pass, and after each unit of several."""

    def _passes(
        self, loaded: Iterator[Fetched], pieces: Sequence[Tensor]
    ) -> Iterator[tuple[Callable[[], Tensor], int, int]]:
        for some in pieces:
            losses, missing = self._pass(next(loaded))
            yield losses, len(some) + missing, len(some)

    def _pass(self, fetched: Fetched) -> tuple[Callable[[], Tensor], int]:
        """The losses of these rows and of those filled in, and how many those are."""
        inputs, targets = fetched
        missing = max(0, (self._height or 0) - batches.num_rows(inputs))
        losses = partial(
            self._losses,
            batches.filled(inputs, missing),
            batches.filled(targets, missing),
            missing,
        )
        return losses, missing

    def _losses(self, rows: Inputs, goals: Any, missing: int) -> Tensor:
        outputs = batches.call(self.engine.model, rows)
        return batches.masked(self.losses(outputs, goals), missing)

    def release(self, total: Tensor) -> None:
        """Add noise, divide, learn. `total` is no sum afterwards."""
        witness.summed(total)
        order = self._order()  # of this step: taken once, whatever happens next
        self.steps_taken += 1
        grads = self._release.gradients(total, order, self.divisor)
        for p, grad in zip(self.engine.params, grads, strict=True):
            p.grad = grad
        witness.gave(grads)
        self.optimizer.step()
        for p in self.engine.params:
            p.grad = None

    def close(self) -> None:
        """Forget the sum, stop watching the model and end the thread of the noise."""
        self._sums.clear()
        self._loader.close()
        self._release.close()
        self.engine.close()

    def _order(self) -> Order | None:
        """Which noise this step has; None for none."""
        std = self.noise_multiplier * self.engine.clip_norm
        if std <= 0:
            return None
        known = self._ordered
        if known is None or (known.step, known.std) != (self.steps_taken, std):
            number = self.engine.num_numbers
            steady = self.moving is None
            known = Order(self.steps_taken, number, std, self.keys, steady=steady)
            self._ordered = known
        return known
