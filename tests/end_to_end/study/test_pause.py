"""A site is paused in the middle of a run, killed, started again, and let go on."""

import subprocess
import sys
import time
from typing import Any

import pytest

Founding = Any  # the fixture `found`; see conftest.py


def pause(hospitals: Any, site: str, *options: str) -> None:
    words = ["client", "pause", *options, "--site", str(hospitals.site_file(site))]
    subprocess.run([sys.executable, "-m", "guilder", *words], check=True, timeout=60)


@pytest.mark.slow  # real processes: about 20 seconds
def test_a_paused_site_releases_nothing_until_its_people_let_it_go_on(
    found: Founding,
) -> None:
    hospitals = found()
    study = hospitals.study_with("aggregation.reply_quantum_s=1")
    hospitals.start_all()
    run_id = hospitals.run(study)
    with hospitals.control() as control:
        events = control.watch(run_id)
        while next(events)["kind"] != "round":
            pass

        pause(hospitals, "site-1", "--now")
        paused_s = time.time()
        waits = next(event for event in events if event["kind"] == "site-waits")
        hospitals.kill("site-1")
        hospitals.start("site-1")
        time.sleep(4)  # some rounds, if it were not paused
        pause(hospitals, "site-1", "--end")
        ended_s = time.time()
        rest = list(events)

    rounds = [event["t"] for event in rest if event["kind"] == "round"]
    assert waits["site"] == "site-1"
    assert [t for t in rounds if paused_s + 1 < t < ended_s] == []
    assert rest[-1]["kind"] == "run-finished", rest[-1]
    (study_of,) = hospitals.verified("site-1").studies
    assert study_of.num_turns_spent == 6  # held back is not charged again
