"""Noise drawn on a second thread while the step that needs it computes.

It is known which key a step's noise will have before its batch is, so the draw need not
wait. This module adds nothing to a sum (`noise`) and knows no model and no torch.

Review, mathematics: the numbers are those of `noise.draw`, to the bit, whatever thread
makes them. A vector is handed out once: `take` forgets it before it returns, one that
was drawn for another step, key or std is dropped, and so is one whose draw failed; the
memory is drawn into again only after the next `start`. When noise is drawn depends on
public numbers alone.
Review, crash order: in memory only. Nothing that was drawn outlives the object, and a
step that fails takes its noise with it: run again, the turn has fresh keys.
"""

import threading
import weakref
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np

from guilder_shared.privacy import noise
from guilder_shared.privacy.normals import Floats
from guilder_shared.privacy.sampling import TurnKeys

_FEW = 1 << 14


@dataclass(frozen=True)
class Order:
    """Which noise: equal orders are equal numbers.

    Attributes:
        step: Of the turn; each step has its own key.
        num: How many numbers.
        std: In the sum's own units; positive.
        keys: The turn's.
    """

    step: int
    num: int
    std: float
    keys: TurnKeys = field(repr=False)

    @property
    def key(self) -> bytes:
        """32 bytes, used for this step's noise only; derived where it is drawn."""
        return self.keys.key("noise", self.step)


@dataclass
class _Drawer:
    """A thread that draws what is asked for, one after the other, until None comes."""

    asked: SimpleQueue[tuple[Order, Floats] | None]
    drawn: SimpleQueue[tuple[Order, Floats | BaseException]]
    thread: threading.Thread


class NoiseAhead:
    """One step's noise at a time, made in the background where that is worth it.

    Memory: one vector of float64. Not for several threads at once. The thread ends with
    `close`, or when nobody holds this object any more.
    """

    def __init__(self) -> None:
        self._drawer: _Drawer | None = None
        self._drawing: Order | None = None
        self._memory = np.empty(0, dtype=np.float64)
        self._taken_until = -1

    def start(self, order: Order) -> None:
        """Begin to draw; noise that was drawn and not taken is dropped."""
        self.drop()
        if order.num <= _FEW:  # a thread would cost more
            return
        if self._drawer is None:
            self._drawer = _begin()
            # the thread knows its two queues and not this object
            weakref.finalize(self, self._drawer.asked.put, None)
        self._drawer.asked.put((order, self._room(order)))
        self._drawing = order

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
        if self._drawing == order:
            found = self._wait()
            if isinstance(found, BaseException):
                raise found
            return found
        self.drop()
        return _draw(order, self._room(order), threads)

    def drop(self) -> None:
        """Forget what was drawn, once nobody writes into its memory any more."""
        if self._drawing is not None:
            self._wait()  # what failed is dropped as well

    def close(self) -> None:
        """End the thread; the object can be used again."""
        self.drop()
        drawer, self._drawer = self._drawer, None
        if drawer is not None:
            drawer.asked.put(None)
            drawer.thread.join()

    def _wait(self) -> Floats | BaseException:
        """What came of the order that is being drawn; it is no longer, then."""
        assert self._drawer is not None
        while True:  # what an interrupted wait has left in the queue is another's
            order, found = self._drawer.drawn.get()
            if order is self._drawing:
                self._drawing = None
                return found

    def _room(self, order: Order) -> Floats:
        even = (order.num + 1) // 2 * 2
        if len(self._memory) < even:
            self._memory = np.empty(even, dtype=np.float64)
        return self._memory[:even]


def _begin() -> _Drawer:
    asked: SimpleQueue[tuple[Order, Floats] | None] = SimpleQueue()
    drawn: SimpleQueue[tuple[Order, Floats | BaseException]] = SimpleQueue()
    # a pool's thread costs a step three times as long to wake
    thread = threading.Thread(
        target=_serve, args=(asked, drawn), name="noise", daemon=True
    )
    thread.start()
    return _Drawer(asked, drawn, thread)


def _serve(
    asked: SimpleQueue[tuple[Order, Floats] | None],
    drawn: SimpleQueue[tuple[Order, Floats | BaseException]],
) -> None:
    while _answers(asked.get(), drawn):
        pass


def _answers(
    asked: tuple[Order, Floats] | None,
    drawn: SimpleQueue[tuple[Order, Floats | BaseException]],
) -> bool:
    """Draw what is asked for, and hold nothing of it; false where that is the end."""
    if asked is None:
        return False
    order, room = asked
    try:
        drawn.put((order, _draw(order, room, 1)))
    except BaseException as error:
        drawn.put((order, error))  # raised where the noise is taken
    return True


def _draw(order: Order, room: Floats, threads: int) -> Floats:
    grid = noise.grid_for(order.std)
    return noise.draw(order.num, order.std, order.key, grid, room, threads=threads)
