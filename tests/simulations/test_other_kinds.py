"""Classes, images and texts through a whole simulated study, by the same turns."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from guilder_shared import tables
from guilder_shared.models import registry
from guilder_shared.study import Study
from guilder_simulations import partition, synthetic
from guilder_simulations.engine import simulate

STUDIES = Path(__file__).parents[2] / "simulations" / "studies"
SHORT = (
    "training.rounds=2",
    "training.local_steps=1",
    "training.sample_rate=0.02",
    "simulation.sites=2",
    "aggregation.min_sites=2",
)
SMALLER = {
    "transaction-images": ("model.width=8",),
    "customer-intents": ("model.width=8", "data.max_tokens=8"),
    "lesions": (),
    "triage": (),
    "patient-scans": (),
    "customer-intents-person": ("model.width=8", "data.max_tokens=8"),
}


def load(name: str, *overrides: str) -> Study:
    return Study.load(STUDIES / f"{name}.toml", overrides)


def digest(table: pa.Table) -> str:
    """SHA-256 of all cells: the same whatever Arrow's memory looks like."""
    hashed = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name)
        if not pa.types.is_fixed_size_binary(column.type):
            column = pc.cast(column, pa.string())
        hashed.update(repr([name, *column.to_pylist()]).encode())
    return hashed.hexdigest()[:16]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("transaction-images", "2ec249c35768d79a"),
        ("customer-questions", "5c062721e703766d"),
        ("lesions", "baa7227f04560ded"),
        ("arrivals", "9bc403728a3faf5e"),
        ("patient-scans", "c963659a22d9f46a"),
        ("questions-by-customer", "d70f081d46bbab8f"),
    ],
)
def test_a_generators_rows_never_change(name: str, wanted: str) -> None:
    assert digest(synthetic.generate(name, 7)) == wanted


@pytest.mark.parametrize("name", SMALLER)
def test_its_source_fits_its_contract_whole(name: str) -> None:
    study = load(name)
    assert study.simulation is not None
    rows = synthetic.generate(study.simulation.source, 1)

    sites, holdout, _ = partition.split(
        rows, study.simulation, 0.2, identity=study.identity
    )

    assert len(sites) == 4
    assert min(part.num_rows for part in sites.values()) > 100
    part = holdout.slice(0, 50)
    tables.check_cells(part, study.public_contract)
    assert len(tables.encode(part, study.public_contract)) == 50


@pytest.mark.parametrize("name", ["patient-scans", "customer-intents-person"])
def test_all_rows_of_a_person_go_the_same_way(name: str) -> None:
    study = load(name)
    assert study.simulation is not None
    assert study.identity is not None
    rows = synthetic.generate(study.simulation.source, 1)

    sites, holdout, _ = partition.split(
        rows, study.simulation, 0.2, identity=study.identity
    )

    parts = [set(p[study.identity].to_pylist()) for p in (*sites.values(), holdout)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert min(map(len, parts)) >= 80


@pytest.mark.parametrize(
    "name",
    [
        "customer-intents",
        pytest.param("triage", marks=pytest.mark.slow),
        pytest.param("transaction-images", marks=pytest.mark.slow),
        pytest.param("lesions", marks=pytest.mark.slow),
        pytest.param("patient-scans", marks=pytest.mark.slow),
        pytest.param("customer-intents-person", marks=pytest.mark.slow),
    ],
)
def test_two_rounds_of_it_run_and_are_charged(name: str, tmp_path: Path) -> None:
    study = load(name, *SHORT, *SMALLER[name], "evaluation.rows=0.05")

    run = simulate(study, tmp_path / "run")

    assert run.rounds == 2
    registry.check(run.model, study)
    start = registry.initial(study)
    assert all(not np.array_equal(start[n], w) for n, w in run.model.items())
    assert all(e is not None and 0 < e <= 8 for e in run.epsilon.values())
    assert {"dice"} <= set(run.metrics) or {"accuracy", "f1"} <= set(run.metrics)
