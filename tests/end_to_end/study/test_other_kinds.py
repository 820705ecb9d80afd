"""Classes, and persons of images and texts, deployed: the same as simulated."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
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
    "training.local_steps=1",
    "training.sample_rate=0.5",
    "training.test_seed=5",
    "privacy.mechanism=none",
    "simulation.sites=3",
    "aggregation.reply_quantum_s=0",
    "aggregation.round_deadline_s=120",
)
ROWS = 900
KINDS = {
    "triage": ("record", "model.hidden=[4]"),
    "patient-scans": ("person", "privacy.max_records=2"),
    "customer-intents-person": ("person", "model.width=8", "data.max_tokens=8"),
}


@pytest.fixture
def sites() -> Iterator[list[Consortium]]:
    made: list[Consortium] = []
    yield made
    for consortium in made:
        consortium.stop()


@pytest.mark.slow  # real processes
@pytest.mark.parametrize("name", KINDS)
def test_deployed_and_simulated_are_the_same(
    name: str, sites: list[Consortium], tmp_path: Path
) -> None:
    unit, *overrides = KINDS[name]
    generator = Study.load(path_of(name)).simulation
    assert generator is not None
    source = tmp_path / "rows.parquet"
    parquet.write_table(synthetic.generate(generator.source, 3).slice(0, ROWS), source)
    where = f'simulation.source="{source}"'
    study = Study.load(path_of(name), (*OVERRIDES, *overrides, where))
    consortium = found(
        tmp_path / "sites", study, smallest_cohort=3, allow_unprotected=True
    )
    sites.append(consortium)
    consortium.start_all()

    with consortium.control() as control:
        run_id = control.submit(study.canonical(), [])
        last = list(control.watch(run_id))[-1]
    simulated = simulate(study, tmp_path / "simulated")

    assert last["kind"] == "run-finished", last
    rounds = consortium.folder / "server/state/runs" / run_id / "rounds"
    deployed = load((rounds / "002/model.safetensors").read_bytes())
    assert set(simulated.metrics) >= {"accuracy", "f1", "loss"}
    for parameter, weights in simulated.model.items():
        np.testing.assert_allclose(deployed[parameter], weights, atol=1e-6)
    for site in consortium.sites:
        with read_ledger(SiteFile.load(consortium.site_file(site))) as ledger:
            path = reports.write(ledger, tmp_path / "reports")
        (told,) = reports.verify(path).studies
        assert (told.unit, told.num_turns_spent) == (unit, 2)
