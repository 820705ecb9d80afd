"""Four banks asked for figures over the wire; one is killed while it counts."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guilder.consortium import Consortium, found
from guilder_client.settings import SiteFile
from guilder_client.site import read_ledger
from guilder_shared import reports
from guilder_shared.privacy.ledger import Grant
from guilder_shared.study import Study
from guilder_simulations.studies import path_of

QUICK = ("aggregation.reply_quantum_s=0", "aggregation.round_deadline_s=60")


@pytest.fixture
def study() -> Study:
    return Study.load(path_of("payment-figures"), QUICK)


@pytest.fixture
def banks(tmp_path: Path, study: Study) -> Iterator[Consortium]:
    consortium = found(tmp_path, study, delta=1e-5, smallest_cohort=3)
    yield consortium
    consortium.stop()


def grants(banks: Consortium, site: str) -> list[Grant]:
    with read_ledger(SiteFile.load(banks.site_file(site))) as ledger:
        return ledger.grants()


@pytest.mark.slow
def test_a_bank_killed_while_it_counts_answers_once(
    banks: Consortium, study: Study, tmp_path: Path
) -> None:
    first = next(iter(banks.sites))
    banks.start_all()
    with banks.control() as control:
        run_id = control.submit(study.canonical(), [])

    ends = time.monotonic() + 60
    while not any(grant.turns for grant in grants(banks, first)):
        assert time.monotonic() < ends
        time.sleep(0.005)
    banks.kill(first)
    banks.start(first)
    with banks.control(timeout_s=60) as control:
        events = list(control.watch(run_id))

    assert events[-1]["kind"] == "run-finished", events[-1]
    (told,) = [event for event in events if event["kind"] == "measured"]
    assert told["sites"] == sorted(banks.sites)
    assert told["metrics"]["customers"] == pytest.approx(
        4800, abs=150
    )  # a fifth is nobody's
    for site in banks.sites:
        (grant,) = grants(banks, site)
        ((number, turn),) = grant.turns.items()
        assert (number, turn.measures, turn.receipt is not None) == (1, 1, True)
        with read_ledger(SiteFile.load(banks.site_file(site))) as ledger:
            path = reports.write(ledger, tmp_path / "reports")
        (verified,) = reports.verify(path).studies
        assert 0.99 < (verified.recomputed_epsilon or 0) <= 1
