"""The upload gate: large replies come alone, small ones together, stalled ones go."""

import pytest

from guilder_server.uploads import IDLE_S, SLACK_BYTES, UploadGate, UploadSizeError

MIB = 1024 * 1024


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> UploadGate:
    return UploadGate(budget_bytes=MIB, largest_bytes=100 * MIB, clock=clock)


def test_small_replies_come_side_by_side_until_the_room_is_full(
    gate: UploadGate,
) -> None:
    admitted = [gate.enter(f"site-{i}", f"reply-{i}", MIB // 3) for i in range(4)]

    assert admitted == [True, True, True, False]


def test_a_large_reply_comes_alone(gate: UploadGate) -> None:
    assert gate.enter("alder", "a", 50 * MIB)

    assert not gate.enter("birch", "b", 1)
    gate.leave("a")
    assert gate.enter("birch", "b", 1)


def test_a_large_reply_waits_for_small_ones(gate: UploadGate) -> None:
    gate.enter("alder", "a", 1)

    assert not gate.enter("birch", "b", 50 * MIB)


def test_a_reply_of_unknown_size_counts_as_the_largest(gate: UploadGate) -> None:
    gate.enter("alder", "a", None)

    assert not gate.enter("birch", "b", 1)


def test_a_reply_larger_than_any_may_be_is_refused(gate: UploadGate) -> None:
    with pytest.raises(UploadSizeError):
        gate.enter("alder", "a", 100 * MIB + 1)


def test_a_site_that_sends_more_than_it_announced_is_cut_off(gate: UploadGate) -> None:
    gate.enter("alder", "a", 1000)
    gate.received("alder", 1000 + SLACK_BYTES)

    with pytest.raises(UploadSizeError):
        gate.received("alder", 1)


def test_a_site_that_announced_nothing_may_send_nothing(gate: UploadGate) -> None:
    with pytest.raises(UploadSizeError):
        gate.received("alder", 1)


def test_a_site_that_stands_still_is_named(gate: UploadGate, clock: Clock) -> None:
    gate.enter("alder", "a", 1000)
    clock.now = IDLE_S
    assert gate.stalled() == []

    clock.now = IDLE_S + 1

    assert gate.stalled() == ["a"]


def test_a_site_that_drips_is_named_though_it_never_stands_still(
    gate: UploadGate, clock: Clock
) -> None:
    gate.enter("alder", "a", 50 * MIB)

    for _ in range(60):
        clock.now += 1
        gate.received("alder", 100)

    assert gate.stalled() == ["a"]


def test_a_slow_but_steady_line_is_not_named(gate: UploadGate, clock: Clock) -> None:
    gate.enter("alder", "a", 50 * MIB)

    for _ in range(600):  # ten minutes at 400 kbit/s
        clock.now += 1
        gate.received("alder", 50_000)

    assert gate.stalled() == []


def test_a_whole_reply_keeps_its_room_until_it_is_folded(
    gate: UploadGate, clock: Clock
) -> None:
    gate.enter("alder", "a", 50 * MIB)
    gate.complete("a")
    clock.now = 10 * IDLE_S

    assert gate.stalled() == []
    assert not gate.enter("birch", "b", 1)


def test_a_new_reply_takes_the_place_of_the_sites_earlier_one(gate: UploadGate) -> None:
    gate.enter("alder", "a", 50 * MIB)

    assert gate.enter("alder", "a2", 50 * MIB)
    gate.leave("a")  # too late to matter
    assert not gate.enter("birch", "b", 1)


def test_what_came_of_a_reply_that_broke_off_is_kept_for_its_sender(
    gate: UploadGate,
) -> None:
    gate.enter("alder", "a", 50 * MIB)
    gate.received("alder", 30 * MIB)
    assert gate.keep("a", "pieces", 30 * MIB)
    assert not gate.enter("birch", "b", 50 * MIB)

    assert gate.enter("alder", "again", 50 * MIB)

    assert gate.take_rest("alder") == "pieces"
    gate.received("alder", 20 * MIB)
    with pytest.raises(UploadSizeError):
        gate.received("alder", MIB)


def test_what_broke_off_makes_way_after_a_while_and_not_before_somebody_asks(
    gate: UploadGate, clock: Clock
) -> None:
    gate.enter("alder", "a", 50 * MIB)
    gate.keep("a", "pieces", 30 * MIB)
    clock.now = 10 * IDLE_S
    assert gate.stalled() == []

    assert gate.enter("birch", "b", 50 * MIB)

    gate.leave("b")
    assert gate.enter("alder", "again", 50 * MIB)
    assert gate.take_rest("alder") is None


def test_what_broke_off_stays_while_there_is_room_for_both(
    gate: UploadGate, clock: Clock
) -> None:
    gate.enter("alder", "a", MIB // 3)
    gate.keep("a", "pieces", MIB // 4)
    clock.now = 10 * IDLE_S

    assert gate.enter("birch", "b", MIB // 3)
    assert gate.enter("alder", "again", MIB // 3)

    assert gate.take_rest("alder") == "pieces"


def test_an_upload_that_stands_still_makes_way_and_may_still_be_kept(
    gate: UploadGate, clock: Clock
) -> None:
    gate.enter("alder", "a", 50 * MIB)
    clock.now = IDLE_S + 1
    assert gate.stalled() == ["a"]
    gate.give_way("a")
    assert gate.stalled() == []
    assert gate.keep("a", "pieces", MIB)

    assert gate.enter("birch", "b", 50 * MIB)

    assert not gate.keep("a", "pieces", MIB)  # its room is another's


def test_the_time_between_two_parts_of_an_upload_does_not_count(
    gate: UploadGate, clock: Clock
) -> None:
    gate.enter("alder", "a", 50 * MIB)
    gate.keep("a", "pieces", MIB)
    clock.now = 15.0
    gate.enter("alder", "again", 50 * MIB)
    clock.now = 15.0 + IDLE_S - 1

    assert gate.stalled() == []
