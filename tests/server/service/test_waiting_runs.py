"""Runs that wait for people at their sites, in a queue with others."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from guilder_server import cohort, consents
from guilder_server.consents import WAITS
from guilder_server.runstore import RunStore

Eventually = Callable[..., Any]
Queue = Any  # the fixture `place`; see conftest.py
ASKED = "study.name=asked"


@pytest.fixture
def asked(place: Queue, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Its people have not decided on one study; runs rest but an instant."""
    monkeypatch.setattr(consents, "SHORTEST_S", 0.02)
    place.undecided.add("asked")
    place.go.set()
    return place


def test_others_go_on_while_a_run_waits_for_people_and_it_goes_on_when_they_agree(
    asked: Queue, eventually: Eventually
) -> None:
    asked.service.start()
    waiting = asked.service.submit(asked.study(ASKED), [])
    eventually(lambda: asked.state(waiting) == WAITS)

    others = [asked.service.submit(asked.study(), []) for _ in range(2)]
    eventually(lambda: [asked.state(run) for run in others] == ["finished"] * 2)
    meanwhile = asked.service.waits(waiting)
    asked.undecided.clear()

    eventually(lambda: asked.state(waiting) == "finished")
    assert meanwhile == dict.fromkeys(asked.names, "GLD-S006 nobody decided")
    assert asked.service.waits(waiting) == {}
    kinds = [event["kind"] for event in asked.service.watch(waiting)]
    assert kinds[:2] == ["run-queued", "run-running"]
    assert kinds.count("site-waits") == len(asked.names)  # however often asked
    assert kinds.index("run-" + WAITS) < kinds.index("round")


def test_two_runs_that_wait_are_asked_for_in_turn(
    asked: Queue, eventually: Eventually
) -> None:
    asked.undecided.add("asked-too")
    asked.service.start()
    first = asked.service.submit(asked.study(ASKED), [])
    second = asked.service.submit(asked.study("study.name=asked-too"), [])
    eventually(lambda: asked.state(first) == asked.state(second) == WAITS)

    asked.undecided.remove("asked-too")
    eventually(lambda: asked.state(second) == "finished")
    still = asked.state(first)
    asked.undecided.clear()

    assert still == WAITS
    eventually(lambda: asked.state(first) == "finished")


def test_a_run_that_waits_does_so_after_a_restart_and_since_it_first_did(
    asked: Queue, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohort, "AGAIN_S", 0.01)
    waiting = asked.service.submit(asked.study(ASKED), [])
    store = RunStore.open(asked.runs / waiting)
    sites = dict.fromkeys(asked.names, "GLD-S006 nobody decided")
    left = {"since": time.time() - 60.0, "sites": sites}
    store.enter(WAITS, waits=left)  # as a server that was killed left it

    asked.service.start()
    eventually(lambda: len(asked.offered) >= 3 * len(asked.names))
    found = store.fact("waits")
    asked.undecided.clear()

    assert found == left
    eventually(lambda: asked.state(waiting) == "finished")


def test_a_run_that_waits_is_stopped_at_once_and_resumed(
    asked: Queue, eventually: Eventually
) -> None:
    asked.service.start()
    waiting = asked.service.submit(asked.study(ASKED), [])
    eventually(lambda: asked.state(waiting) == WAITS)

    asked.service.stop_run(waiting)
    eventually(lambda: asked.state(waiting) == "stopped")
    asked.undecided.clear()
    asked.service.resume(waiting)

    eventually(lambda: asked.state(waiting) == "finished")
