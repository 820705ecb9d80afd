"""A study of persons, deployed: charged and told by person, the same as simulated."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from safetensors.numpy import load

from guilder.consortium import Consortium, found
from guilder_client.settings import SiteFile
from guilder_client.site import read_ledger
from guilder_shared import reports
from guilder_shared.study import Study
from guilder_simulations import synthetic
from guilder_simulations.engine import simulate
from guilder_simulations.studies import path_of

OVERRIDES = (
    "training.rounds=2",
    "training.sample_rate=0.5",
    "training.test_seed=5",
    "model.hidden=[4]",
    "privacy.mechanism=none",
    "privacy.max_records=2",
    "simulation.sites=3",
    "aggregation.reply_quantum_s=0",
    "aggregation.round_deadline_s=60",
)


@pytest.fixture
def banks(tmp_path: Path) -> Iterator[tuple[Consortium, Study]]:
    whole = synthetic.generate("card-payments", 3)
    per_bank = whole.num_rows // 4
    parts = [whole.slice(bank * per_bank, 300) for bank in range(4)]
    source = tmp_path / "payments.parquet"
    parquet.write_table(pa.concat_tables(parts), source)
    where = f'simulation.source="{source}"'
    study = Study.load(path_of("card-fraud-person"), (*OVERRIDES, where))
    consortium = found(
        tmp_path / "banks", study, smallest_cohort=3, allow_unprotected=True
    )
    yield consortium, study
    consortium.stop()


@pytest.mark.slow  # nine seconds: real processes
def test_deployed_and_simulated_persons_are_the_same(
    banks: tuple[Consortium, Study], tmp_path: Path
) -> None:
    consortium, study = banks
    consortium.start_all()

    with consortium.control() as control:
        run_id = control.submit(study.canonical(), [])
        last = list(control.watch(run_id))[-1]
    simulated = simulate(study, tmp_path / "simulated")

    assert last["kind"] == "run-finished", last
    rounds = consortium.folder / "server/state/runs" / run_id / "rounds"
    deployed = load((rounds / "002/model.safetensors").read_bytes())
    for name, weights in simulated.model.items():
        np.testing.assert_allclose(deployed[name], weights, atol=1e-6)
    for site in consortium.sites:
        with read_ledger(SiteFile.load(consortium.site_file(site))) as ledger:
            path = reports.write(ledger, tmp_path / "reports")
        (told,) = reports.verify(path).studies
        assert (told.unit, told.num_turns_spent) == ("person", 2)
