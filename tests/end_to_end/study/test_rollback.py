"""A real site that puts yesterday's ledger back is stopped by a restarted server."""

import shutil
from typing import Any

import pytest

Founding = Any  # the fixture `found`; see conftest.py


@pytest.mark.slow(minutes=0.4)  # tests/client/test_rollback.py has it in one process
def test_yesterdays_ledger_is_refused_by_name_and_nothing_is_charged(
    found: Founding,
) -> None:
    hospitals = found()
    state = hospitals.site_file("site-2").parent / "state"
    yesterday = hospitals.folder / "yesterday"
    hospitals.start_all()
    hospitals.control().close()
    hospitals.stop("site-2")
    shutil.copytree(state, yesterday)
    hospitals.start("site-2")
    assert hospitals.outcome(hospitals.run())["kind"] == "run-finished"
    hospitals.stop("site-2", "server")
    shutil.rmtree(state)
    shutil.copytree(yesterday, state)
    hospitals.start("server")
    hospitals.start("site-2")

    last = hospitals.outcome(hospitals.run())

    assert last["kind"] == "run-failed"
    assert "'site-2'" in last["what"]
    assert "GLD-I080" in last["why"]
    assert hospitals.grants("site-2") == []
