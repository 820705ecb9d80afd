"""Noise drawn ahead: the same numbers, once, and never another step's."""

import gc
import threading
import time
from typing import Any

import numpy as np
import pytest

from guilder_shared.privacy import noise
from guilder_shared.privacy.ahead import NoiseAhead, Order
from guilder_shared.privacy.normals import BLOCK
from guilder_shared.privacy.sampling import TurnKeys

KEYS = TurnKeys.seeded(4, site="site-1", round_no=1)
NUM = 3 * BLOCK + 5


def order(
    step: int, std: float = 0.7, num: int = NUM, *, steady: bool = False
) -> Order:
    return Order(step, num, std, KEYS, steady)


def alone(wanted: Order) -> Any:
    grid = noise.grid_for(wanted.std)
    return noise.draw(wanted.num, wanted.std, wanted.key, grid)


def threads_of_noise() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("noise")]


@pytest.fixture
def ahead() -> Any:
    made = NoiseAhead()
    yield made
    made.close()


@pytest.mark.parametrize("num", [0, 1, 7, 20_000, BLOCK, BLOCK + 1, NUM])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_noise_drawn_ahead_is_that_drawn_at_once_to_the_bit(
    ahead: NoiseAhead, num: int, threads: int
) -> None:
    wanted = order(0, num=num)
    later = order(1, num=num)
    ahead.start(wanted)

    first = ahead.take(wanted).tobytes()
    second = ahead.take(later, threads=threads).tobytes()

    assert first == alone(wanted).tobytes()
    assert second == alone(later).tobytes()


@pytest.mark.parametrize("num", [0, 1, 6, 31, 5_001, 16_384, 16_385, 74_243, 200_000])
@pytest.mark.parametrize("begun", [True, False])
def test_the_noise_of_steps_drawn_together_is_that_of_each_to_the_bit(
    ahead: NoiseAhead, num: int, begun: bool
) -> None:
    for step in range(40):
        wanted = order(step, num=num, steady=True)
        if begun:
            ahead.start(wanted)
        found = ahead.take(wanted)
        assert found.shape == (num,)
        assert found.tobytes() == alone(wanted).tobytes()


def test_steps_are_drawn_together_and_in_bounded_memory(
    ahead: NoiseAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []
    several = noise.draw_several

    def watched(num: int, std: float, keys: Any, grid: float, out: Any) -> None:
        together.append(len(keys))
        assert len(out) <= 1 << 19
        several(num, std, keys, grid, out)

    monkeypatch.setattr(noise, "draw_several", watched)
    for step in range(60):
        ahead.start(order(step, num=60_000, steady=True))
        ahead.take(order(step, num=60_000, steady=True))
    ahead.close()

    assert together == [2, 4, *[8] * (len(together) - 2)]
    assert 60 <= 1 + sum(together) <= 60 + 16


def test_a_std_that_moves_is_drawn_for_one_step_at_a_time(
    ahead: NoiseAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise, "draw_several", None)
    for step in range(6):
        for num in (31, 60_000):
            wanted = order(2 * step + (num > 31), std=0.5 + step, num=num)
            ahead.start(wanted)
            assert ahead.take(wanted).tobytes() == alone(wanted).tobytes()


def test_noise_drawn_together_is_dropped_when_the_std_moves(ahead: NoiseAhead) -> None:
    for step in range(4):
        ahead.start(order(step, num=60_000, steady=True))
        ahead.take(order(step, num=60_000, steady=True))

    louder = order(4, std=2.0, num=60_000, steady=True)
    ahead.start(louder)
    found = ahead.take(louder).tobytes()

    assert found == alone(louder).tobytes()
    for again in (4, 2):
        with pytest.raises(ValueError, match="taken before"):
            ahead.take(order(again, num=60_000, steady=True))


def test_steps_that_are_skipped_are_not_handed_out(ahead: NoiseAhead) -> None:
    for step in (0, 1, 2, 5, 9, 10, 30):
        wanted = order(step, num=60_000, steady=True)
        ahead.start(wanted)
        assert ahead.take(wanted).tobytes() == alone(wanted).tobytes()


def test_a_joint_draw_that_fails_gives_no_noise_and_the_next_is_whole(
    ahead: NoiseAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(noise, "draw_several", broken)
        ahead.start(order(0, num=60_000, steady=True))
        ahead.take(order(0, num=60_000, steady=True))
        ahead.start(order(1, num=60_000, steady=True))
        with pytest.raises(MemoryError):
            ahead.take(order(1, num=60_000, steady=True))
    for step in range(2, 9):
        wanted = order(step, num=60_000, steady=True)
        ahead.start(wanted)
        assert ahead.take(wanted).tobytes() == alone(wanted).tobytes()


def test_the_noise_of_a_step_cannot_be_had_twice(ahead: NoiseAhead) -> None:
    """An attack: two sums under one noise tell their difference exactly."""
    ahead.start(order(3))
    ahead.take(order(3))

    for again in (order(3), order(3, std=0.9), order(2)):
        with pytest.raises(ValueError, match="taken before"):
            ahead.take(again)
    ahead.start(order(3))
    with pytest.raises(ValueError, match="taken before"):
        ahead.take(order(3))


def test_memory_used_again_holds_none_of_the_last_noise(ahead: NoiseAhead) -> None:
    ahead.start(order(0))
    first = ahead.take(order(0)).copy()
    ahead.start(order(1))

    second = ahead.take(order(1))

    assert second.tobytes() == alone(order(1)).tobytes()
    assert not np.any(second == first)


def test_noise_drawn_for_another_std_or_step_is_dropped(ahead: NoiseAhead) -> None:
    ahead.start(order(0, std=0.5))
    louder = ahead.take(order(0, std=2.0)).copy()
    ahead.start(order(1))

    skipped = ahead.take(order(2))

    assert louder.tobytes() == alone(order(0, std=2.0)).tobytes()
    assert skipped.tobytes() == alone(order(2)).tobytes()


def test_a_draw_that_fails_gives_no_noise_and_the_next_is_whole(
    ahead: NoiseAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = noise.draw

    def broken(
        num: int, std: float, key: bytes, grid: float, out: Any, **_: Any
    ) -> Any:
        draw(num // 2, std, key, grid, out[: num // 2 // 2 * 2])
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(noise, "draw", broken)
        ahead.start(order(0))
        with pytest.raises(MemoryError):
            ahead.take(order(0))
        ahead.start(order(1))
        ahead.drop()
    ahead.start(order(2))

    assert ahead.take(order(2)).tobytes() == alone(order(2)).tobytes()


def test_nothing_is_drawn_into_noise_that_is_being_used(
    ahead: NoiseAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draw that is late must not write into the memory of the one after it."""
    draw, go = noise.draw, threading.Event()

    def late(*args: Any, **named: Any) -> Any:
        if threading.current_thread().name.startswith("noise"):
            go.wait(10)
        return draw(*args, **named)

    monkeypatch.setattr(noise, "draw", late)
    ahead.start(order(0))
    threading.Timer(0.05, go.set).start()

    found = ahead.take(order(1))  # another step's: waits until the first has ended

    assert go.is_set()
    assert found.tobytes() == alone(order(1)).tobytes()


def test_the_thread_ends_with_the_object() -> None:
    made = NoiseAhead()
    made.start(order(0))
    (thread,) = threads_of_noise()

    del made
    gc.collect()
    thread.join(10)

    assert not thread.is_alive()


def test_closing_ends_the_thread_and_forgets_what_was_drawn() -> None:
    made = NoiseAhead()
    made.start(order(0))
    until = time.monotonic() + 10
    while not threads_of_noise() and time.monotonic() < until:
        time.sleep(0.001)

    made.close()

    assert not threads_of_noise()
    assert made.take(order(0)).tobytes() == alone(order(0)).tobytes()


def test_an_order_does_not_print_its_key() -> None:
    assert KEYS.key("noise", 0).hex() not in repr(order(0))
    assert repr(KEYS.key("noise", 0)) not in repr(order(0))
