"""Noise drawn on a second thread while the steps that need it compute.

It is known which key a step's noise will have before its batch is, so the draw need not
wait. Steps of few numbers are drawn several at once: between two of its calls a thread
waits for Python's lock, and whoever gives it away has to wake that thread, so that many
short calls cost the step more than the numbers do. This module adds nothing to a sum
(`noise`) and knows no model and no torch.

Review, mathematics: the numbers are those of `noise.draw`, to the bit, whatever thread
makes them and whichever are drawn together. A step's are handed out once: `take` gives
no step a second time and none before the last; those drawn for another key, number or
std are dropped, and so are those whose draw failed; memory is drawn into again only
after the next `start` or `take`. When noise is drawn, and how much of it together,
depends on public numbers alone.
Review, crash order: in memory only. Nothing that was drawn outlives the object, and a
step that fails takes its noise with it: run again, the turn has fresh keys.
"""

import threading
import weakref
from collections import deque
from dataclasses import dataclass, field, replace
from queue import SimpleQueue

import numpy as np

from guilder_shared.privacy import noise
from guilder_shared.privacy.normals import Floats
from guilder_shared.privacy.sampling import TurnKeys

_FEW = 1 << 14  # numbers of a step for which a thread would cost more
_TOGETHER = 1 << 19  # numbers drawn at once: 4 MiB, and 12 MiB to draw them in
_STEPS = 16  # drawn at once: a turn that ends throws some away


@dataclass(frozen=True)
class Order:
    """Which noise: equal orders are equal numbers.

    Attributes:
        step: Of the turn; each step has its own key.
        num: How many numbers.
        std: In the sum's own units; positive.
        keys: The turn's.
        steady: Steps with the same numbers are likely to follow. Public.
    """

    step: int
    num: int
    std: float
    keys: TurnKeys = field(repr=False)
    steady: bool = field(default=False, compare=False)

    @property
    def key(self) -> bytes:
        """32 bytes, used for this step's noise only; derived where it is drawn."""
        return self.keys.key("noise", self.step)

    def after(self, steps: int) -> "Order":
        """The same some steps later."""
        return replace(self, step=self.step + steps)


@dataclass(eq=False)
class _Batch:
    """The noise of some steps in a row, being drawn or drawn."""

    first: Order
    steps: int
    room: Floats
    drawn: bool = False
    failed: BaseException | None = None

    def holds(self, order: Order) -> bool:
        first = self.first
        here = 0 <= order.step - first.step < self.steps
        same = (order.num, order.std) == (first.num, first.std)
        return here and same and order.keys == first.keys

    @property
    def following(self) -> Order:
        return self.first.after(self.steps)

    def noise_of(self, order: Order) -> Floats:
        rows = self.room.reshape(self.steps, _even(order.num))
        found: Floats = rows[order.step - self.first.step, : order.num]
        return found

    def draw(self, threads: int) -> None:
        first, grid = self.first, noise.grid_for(self.first.std)
        if self.steps == 1:
            num, key = first.num, first.key
            noise.draw(num, first.std, key, grid, self.room, threads=threads)
        else:
            steps = range(first.step, first.step + self.steps)
            keys = [first.keys.key("noise", step) for step in steps]
            noise.draw_several(first.num, first.std, keys, grid, self.room)
        self.drawn = True


@dataclass
class _Drawer:
    """A thread that draws what is asked for, one after the other, until None comes."""

    asked: SimpleQueue[_Batch | None]
    answered: SimpleQueue[_Batch]
    thread: threading.Thread


class NoiseAhead:
    """The noise of one step after another, made in the background where that pays.

    Memory: one step's numbers in float64; where few of them are drawn together, two
    times 4 MiB at most. Not for several threads at once. The thread ends with `close`,
    or when nobody holds this object any more.
    """

    def __init__(self) -> None:
        self._drawer: _Drawer | None = None
        self._batches: deque[_Batch] = deque()  # the one in use, and the one after it
        self._latest: _Batch | None = None
        self._memory = [np.empty(0, dtype=np.float64), np.empty(0, dtype=np.float64)]
        self._taken_until = -1

    def start(self, order: Order) -> None:
        """Begin to draw; noise that was drawn for steps before is dropped."""
        self._forget_others(order)
        if order.num <= _FEW:  # drawn where it is taken
            return
        if not self._batches:
            self._ask(self._batch(order, 1))
        last = self._batches[-1]
        if order.steady and last.following == order.after(1) and _most(order) > 1:
            self._ask(self._batch(last.following, 2 * last.steps))

    def take(self, order: Order, *, threads: int = 1) -> Floats:
        """The order's noise, `noise.draw`'s numbers; it may be overwritten.

        It is valid until the next `start` or `take`.

        Args:
            order: As it was started; if it was not, it is drawn now.
            threads: For drawing now.

        Raises:
            ValueError: Noise of this step, or of a later one, was taken before.
        """
        if order.step <= self._taken_until:
            raise ValueError(f"the noise of step {order.step} was taken before")
        self._taken_until = order.step
        self._forget_others(order)
        if not self._batches:
            latest, steps = self._latest, 1
            if latest is not None and latest.following == order and order.num <= _FEW:
                steps = 2 * latest.steps
            batch = self._batch(order, steps)
            batch.draw(threads)
            self._batches.append(batch)
        batch = self._batches[0]
        self._wait(batch)
        if batch.failed is not None:
            self._batches.popleft()
            raise batch.failed
        return batch.noise_of(order)

    def drop(self) -> None:
        """Forget what was drawn, once nobody writes into its memory any more."""
        while self._batches:
            self._wait(self._batches.popleft())  # what failed is dropped as well
        self._latest = None

    def close(self) -> None:
        """End the thread; the object can be used again."""
        self.drop()
        drawer, self._drawer = self._drawer, None
        if drawer is not None:
            drawer.asked.put(None)
            drawer.thread.join()

    def _forget_others(self, order: Order) -> None:
        while self._batches and not self._batches[0].holds(order):
            self._wait(self._batches.popleft())

    def _batch(self, first: Order, steps: int) -> _Batch:
        """A place for so many steps, or for as many as are drawn together."""
        steps = min(steps, _most(first)) if first.steady else 1
        size = steps * _even(first.num)
        busy = [x.room.base for x in self._batches]
        place = 0 if all(x is not self._memory[0] for x in busy) else 1
        if len(self._memory[place]) < size:
            self._memory[place] = np.empty(size, dtype=np.float64)
        self._latest = _Batch(first, steps, self._memory[place][:size])
        return self._latest

    def _ask(self, batch: _Batch) -> None:
        if self._drawer is None:
            self._drawer = _begin()
            # the thread knows its two queues and not this object
            weakref.finalize(self, self._drawer.asked.put, None)
        self._batches.append(batch)
        self._drawer.asked.put(batch)

    def _wait(self, batch: _Batch) -> None:
        while not batch.drawn and batch.failed is None:
            assert self._drawer is not None
            self._drawer.answered.get()  # perhaps another's, of an interrupted wait


def _even(num: int) -> int:
    return (num + 1) // 2 * 2


def _most(order: Order) -> int:
    """Steps that are drawn together; NumPy multiplies a lone pair in another way."""
    if order.num <= 2:
        return 1
    return max(1, min(_STEPS, _TOGETHER // max(1, _even(order.num))))


def _begin() -> _Drawer:
    asked: SimpleQueue[_Batch | None] = SimpleQueue()
    answered: SimpleQueue[_Batch] = SimpleQueue()
    # a pool's thread costs a step three times as long to wake
    thread = threading.Thread(
        target=_serve, args=(asked, answered), name="noise", daemon=True
    )
    thread.start()
    return _Drawer(asked, answered, thread)


def _serve(asked: SimpleQueue[_Batch | None], answered: SimpleQueue[_Batch]) -> None:
    while _answers(asked.get(), answered):
        pass


def _answers(batch: _Batch | None, answered: SimpleQueue[_Batch]) -> bool:
    """Draw what is asked for, and hold nothing of it; false where that is the end."""
    if batch is None:
        return False
    try:
        batch.draw(1)
    except BaseException as error:
        batch.failed = error  # raised where the noise is taken
    answered.put(batch)
    return True
