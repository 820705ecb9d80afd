"""A run that waits for people: how long, in whose favour, and what is remembered."""

from pathlib import Path

import pytest

from guilder_server import submission
from guilder_server.consents import WAITS, Consents, GivesWay
from guilder_server.places import Places
from guilder_server.runstore import RunStore
from guilder_shared.study import Study
from guilder_simulations.studies import path_of


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    plain = ("privacy.mechanism=none", "evaluation.on=none")
    study = Study.load(path_of("breast-cancer"), plain)
    return submission.begin(tmp_path / "run", study, run_id="r")


def test_a_run_keeps_its_place_while_nobody_wants_it(
    store: RunStore, clock: Clock
) -> None:
    consents = Consents(store, 60.0, clock=clock)
    consents.wait("alder", "GLD-S006")

    consents.hold()
    consents.hold()

    kinds = [event["kind"] for event in store.events()]
    assert kinds == ["run-queued", "site-waits", "run-" + WAITS]
    assert store.fact("waits") == {"since": 1_000.0, "sites": {"alder": "GLD-S006"}}


def test_a_run_gives_way_and_rests_the_longer_the_longer_it_has_waited(
    store: RunStore, clock: Clock
) -> None:
    consents = Consents(store, 3_600.0, lambda: True, clock)
    consents.wait("alder", "GLD-S006")
    rests = []

    for waited_s in (0, 200, 3_000):
        clock.now = 1_000.0 + waited_s
        with pytest.raises(GivesWay) as caught:
            consents.hold()
        rests.append(caught.value.rest_s)

    assert rests == [5.0, 20.0, 60.0]


def test_a_run_without_enough_sites_that_wait_for_nobody_gives_no_way(
    store: RunStore, clock: Clock
) -> None:
    consents = Consents(store, 3_600.0, lambda: True, clock)

    consents.hold()

    assert store.fact("state") == "queued"
    assert not consents.is_over(9.0, deadline_s=10.0)
    assert consents.is_over(11.0, deadline_s=10.0)


def test_people_have_their_time_from_the_first_question_on_and_are_asked_once_more(
    store: RunStore, clock: Clock
) -> None:
    consents = Consents(store, 60.0, clock=clock)
    consents.wait("alder", "GLD-S006")
    consents.hold()
    clock.now += 59.0
    early = consents.is_over(59.0, deadline_s=10.0)
    clock.now += 5_000.0  # the server was away

    again = Consents(store, 60.0, clock=clock)
    unasked = again.is_over(0.1, deadline_s=10.0)
    again.wait("alder", "GLD-S006")

    assert (early, unasked) == (False, False)
    assert again.is_over(0.1, deadline_s=10.0)
    assert [e["kind"] for e in store.events()].count("site-waits") == 1


def test_when_the_last_one_decides_the_run_is_running_again(
    store: RunStore, clock: Clock
) -> None:
    consents = Consents(store, 60.0, clock=clock)
    consents.wait("alder", "GLD-S006")
    consents.hold()

    consents.decided("alder")
    consents.hold()

    assert (store.fact("state"), store.fact("waits")) == ("running", None)


def test_places_are_given_by_the_moment_from_which_they_are_wanted(
    clock: Clock,
) -> None:
    places = Places(clock)
    places.put("rests", 5.0)
    places.put("first")
    clock.now += 6.0
    places.put("last")

    order = [places.take() for _ in range(3)]

    assert order == ["first", "rests", "last"]
    assert not places.is_wanted()


def test_a_run_that_rests_wants_no_place_and_waits_for_one_only_once(
    clock: Clock,
) -> None:
    places = Places(clock)
    places.put("a")
    places.put("a", 5.0)

    assert (len(places), places.is_wanted()) == (1, False)
    clock.now += 5.0
    assert places.is_wanted()


def test_closed_places_are_given_to_nobody() -> None:
    places = Places()
    places.put("a")

    places.close()

    assert places.take() is None
