"""The control channel's calls: what goes through, and what errors become."""

import threading
from typing import Any

import pytest

from guilder_server import control
from guilder_server.console.control import ControlClient
from guilder_server.control import MOST_WATCHERS
from guilder_shared.errors import (
    BudgetSpent,
    NetworkError,
    RunFailed,
    StudyError,
)

Place = Any  # the fixture `place`; see conftest.py


def test_an_operator_submits_lists_and_stops(
    place: Place, client: ControlClient
) -> None:
    run_id = client.submit(b'{"a":1}', ["bank-a"])
    client.stop(run_id)

    assert place.runs.submitted == [(b'{"a":1}', ["bank-a"])]
    assert client.list() == [{"run_id": "run-1", "state": "running"}]
    assert place.runs.stopped == ["run-1"]


def test_events_are_watched_to_the_end_of_the_run(
    place: Place, client: ControlClient
) -> None:
    for event in ({"kind": "round", "round": 1}, {"kind": "finished"}, None):
        place.runs.more.put(event)

    events = list(client.watch("run-1"))

    assert events == [{"kind": "round", "round": 1}, {"kind": "finished"}]


def test_a_watch_goes_on_after_the_server_restarted_and_repeats_nothing(
    place: Place, client: ControlClient
) -> None:
    watch = client.watch("run-1")
    place.runs.more.put({"round": 1})
    first = next(watch)

    place.server.stop()
    place.server = place.start(place.server.port)
    place.runs.more.put({"round": 2})
    place.runs.more.put(None)

    assert [first, *watch] == [{"round": 1}, {"round": 2}]


def test_a_watch_gives_up_when_the_server_stays_away(
    place: Place, client: ControlClient
) -> None:
    watch = client.watch("run-1", patience_s=0.3)
    place.runs.more.put({"round": 1})
    next(watch)
    place.server.stop()

    with pytest.raises(NetworkError) as caught:
        next(watch)

    assert caught.value.error_id == "GLD-N050"


def test_a_watcher_that_leaves_gives_its_thread_back(
    place: Place, client: ControlClient
) -> None:
    for _ in range(MOST_WATCHERS + 2):
        watch = client.watch("run-1")
        place.runs.more.put({"round": 1})
        next(watch)
        watch.close()
        wait_until(lambda: place.runs.watchers == 0)

    assert client.list()


def test_watchers_do_not_take_the_threads_of_other_calls(
    place: Place, client: ControlClient
) -> None:
    place.runs.events.append({"round": 1})
    watches = [client.watch("run-1") for _ in range(MOST_WATCHERS)]
    for watch in watches:
        next(watch)

    with pytest.raises(NetworkError) as caught:
        next(client.watch("run-1"))

    assert caught.value.error_id == "GLD-N057"
    assert client.list()


def test_an_error_crosses_the_channel_whole_with_its_exit_code(
    place: Place, client: ControlClient
) -> None:
    place.runs.error = BudgetSpent("GLD-B003", "no room: é", why="spent", fix="wait")

    with pytest.raises(BudgetSpent) as caught:
        client.submit(b"{}")

    error = caught.value
    assert (error.error_id, error.what, error.why, error.fix, error.exit_code) == (
        "GLD-B003",
        "no room: é",
        "spent",
        "wait",
        4,
    )


def test_an_error_in_a_watch_crosses_too(client: ControlClient) -> None:
    with pytest.raises(RunFailed, match="there is no run 'nobody'"):
        next(client.watch("nobody"))


def test_an_error_too_long_for_a_header_is_cut_not_lost(
    place: Place, client: ControlClient
) -> None:
    place.runs.error = StudyError("GLD-C010", "é" * 100_000, fix="f" * 100_000)

    with pytest.raises(StudyError) as caught:
        client.submit(b"{}")

    assert caught.value.error_id == "GLD-C010"


def test_a_bug_in_the_server_is_told_without_its_text(
    place: Place, client: ControlClient
) -> None:
    place.runs.error = ZeroDivisionError("secret")

    with pytest.raises(RunFailed) as caught:
        client.submit(b"{}")

    assert "secret" not in str(caught.value)


def wait_until(true: Any) -> None:
    pause = threading.Event()
    for _ in range(500):
        if true():
            return
        pause.wait(0.02)
    raise AssertionError("waited 10 s in vain")


def test_a_server_that_lies_cannot_move_the_operators_cursor(
    place: Place, client: ControlClient
) -> None:
    error = StudyError("GLD-C010", "\x1b[2J\nall is well", why="\r\x07", fix="\u202e")
    place.runs.error = error

    with pytest.raises(StudyError) as caught:
        client.submit(b"{}")

    told = caught.value
    assert (told.what, told.why, told.fix) == ("?[2J all is well", " ?", "?")


@pytest.mark.parametrize(
    "error_id", ["GLD-C\x1b[2J", "GLD-C01", "GLD-Z001", "", "CCCCC"]
)
@pytest.mark.attack("a server", "an error whose id is a terminal trick", "GLD-R012")
def test_an_error_with_an_id_of_its_own_making_is_told_as_a_bug(
    place: Place, client: ControlClient, error_id: str
) -> None:
    error = StudyError("GLD-C010", "what")
    error.error_id = error_id
    place.runs.error = error

    with pytest.raises(RunFailed) as caught:
        client.submit(b"{}")

    assert caught.value.error_id == "GLD-R012"


def test_a_watcher_is_told_who_is_awaited_and_why(
    place: Place, client: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "SILENCE_S", 0.01)
    place.awaited.update({"bank-a": "is not online"})

    watch = client.watch("run-1")
    first = next(watch)
    place.runs.more.put({"kind": "finished"})
    place.runs.more.put(None)

    assert first == {"kind": "awaiting", "sites": {"bank-a": "is not online"}}
    assert list(watch) == [{"kind": "finished"}]  # and it is told once


def test_who_is_awaited_counts_as_no_event_when_the_server_restarts(
    place: Place, client: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "SILENCE_S", 0.01)
    place.awaited.update({"bank-a": "works on it"})
    watch = client.watch("run-1")
    seen = [next(watch)]
    place.runs.more.put({"round": 1})
    seen.append(next(watch))

    place.server.stop()
    place.server = place.start(place.server.port)
    place.runs.more.put({"round": 2})
    place.runs.more.put(None)

    rounds = [event for event in [*seen, *watch] if "round" in event]
    assert rounds == [{"round": 1}, {"round": 2}]
