"""Fifty sites take part while a hundred sleep, all on this machine's two cores."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "many_sites.py"


@pytest.mark.slow(minutes=2)
@pytest.mark.timeout(1500)
def test_fifty_sites_finish_a_study_while_a_hundred_idle_ones_stay_connected() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--json", "--rounds", "4", "--seconds", "5"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=1400,
        check=True,
    )

    told = json.loads(done.stdout.splitlines()[-1])
    print(told)  # the server's processor time and memory, for who reads the log
    assert told["figures"]["rounds"] == 4
    assert told["figures"]["idle_connected"] == 100
