"""A process that stands still answers nothing and ends no line: it is half open."""

import os
import signal
import time
from typing import Any

import pytest

Founding = Any  # the fixture `found_forked`; see conftest.py
LONGER_THAN_A_LEASE_S = 35.0  # and than a client waits for an answer


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("who", ["server", "site-2"])
def test_a_run_goes_on_after_a_process_stood_still(
    found_forked: Founding, who: str
) -> None:
    hospitals = found_forked()
    study = hospitals.study_with(
        "training.rounds=40", "aggregation.round_deadline_s=120"
    )
    hospitals.start_all()
    run_id = hospitals.run(study)
    ends = time.monotonic() + 60
    while hospitals.num_rounds(run_id) < 3 and time.monotonic() < ends:
        time.sleep(0.02)

    os.kill(hospitals.pid(who), signal.SIGSTOP)
    before = hospitals.num_rounds(run_id)
    time.sleep(LONGER_THAN_A_LEASE_S)
    stood = hospitals.num_rounds(run_id)
    os.kill(hospitals.pid(who), signal.SIGCONT)
    last = hospitals.outcome(run_id)

    assert 3 <= before <= stood <= before + 1 < 40
    assert last["kind"] == "run-finished", last
    for site in hospitals.sites:
        (grant,) = hospitals.grants(site)
        assert len(grant.turns) == 40  # nobody was charged a second time
        assert all(turn.sealed_sha256 for turn in grant.turns.values())
        (study_of,) = hospitals.verified(site).studies
        assert study_of.num_turns_spent == 40
