"""Charged metrics of a real consortium: killed while it measures, exact afterwards."""

import time
from typing import Any

import pytest

from guilder_client.settings import SiteFile
from guilder_client.site import read_ledger

Founding = Any  # the fixture `found`; see conftest.py
CHARGED = (
    "evaluation.on=charged",
    "evaluation.rows=0.4",
    "evaluation.share=1.0",
    "privacy.epsilon=2.9",
)
LAST = 6  # rounds of the study


def measuring(hospitals: Any, site: str) -> list[tuple[int, int, bool]]:
    """Of each turn that measures: its shares, how often it began, whether it left."""
    (grant,) = hospitals.grants(site)
    return [
        (turn.measures, turn.attempts, turn.receipt is not None)
        for turn in grant.turns.values()
        if turn.measures
    ]


def wait_until(condition: Any, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.005)


def is_measuring(hospitals: Any, site: str) -> bool:
    settings = SiteFile.load(hospitals.site_file(site))
    with read_ledger(settings) as ledger:
        return any(t.measures for g in ledger.grants() for t in g.turns.values())


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["client", "server"])
def test_killed_while_it_measures_every_site_answers_once(
    found: Founding, victim: str
) -> None:
    hospitals = found()
    first = next(iter(hospitals.sites))
    hospitals.start_all()
    run_id = hospitals.run(hospitals.study_with(*CHARGED))

    wait_until(lambda: is_measuring(hospitals, first))
    killed = first if victim == "client" else "server"
    hospitals.kill(killed)
    hospitals.start(killed)
    with hospitals.control(timeout_s=60) as control:
        events = list(control.watch(run_id))

    assert events[-1]["kind"] == "run-finished", events[-1]
    (told,) = [event for event in events if event["kind"] == "measured"]
    assert told["sites"] == sorted(hospitals.sites)
    assert told["round"] == LAST
    assert 0 <= told["metrics"]["accuracy"] <= 1
    for site in hospitals.sites:
        ((shares, attempts, received),) = measuring(hospitals, site)
        assert (shares, received) == (LAST + 1, True)
        assert attempts <= 2
        (study,) = hospitals.verified(site).studies
        assert study.num_turns_spent == LAST + 1
        assert study.recomputed_epsilon <= 2.9


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["client", "server"])
def test_killed_between_metrics_by_round_each_is_measured_once(
    found: Founding, victim: str
) -> None:
    hospitals = found()
    first = next(iter(hospitals.sites))
    hospitals.start_all()
    run_id = hospitals.run(hospitals.study_with(*CHARGED, "evaluation.every=2"))

    wait_until(lambda: is_measuring(hospitals, first))
    killed = first if victim == "client" else "server"
    hospitals.kill(killed)
    hospitals.start(killed)
    with hospitals.control(timeout_s=60) as control:
        events = list(control.watch(run_id))

    assert events[-1]["kind"] == "run-finished", events[-1]
    told = [event for event in events if event["kind"] == "measured"]
    assert [event["round"] for event in told] == [2, 4, LAST]
    assert all(0 <= event["metrics"]["accuracy"] <= 1 for event in told)
    for site in hospitals.sites:
        releases = measuring(hospitals, site)
        assert [shares for shares, _, _ in releases] == [3, 2, 2]
        assert all(attempts <= 2 for _, attempts, _ in releases)
        assert all(received for _, _, received in releases)
        (study,) = hospitals.verified(site).studies
        assert study.num_turns_spent == LAST + 1
        assert study.recomputed_epsilon <= 2.9
