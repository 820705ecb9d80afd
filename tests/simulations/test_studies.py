"""The studies that ship: they load, their data fits them, and they learn enough."""

from pathlib import Path
from statistics import mean

import numpy as np
import pytest

from guilder_shared import tables
from guilder_shared.models import registry
from guilder_shared.study import CategoryColumn, Study, TableData
from guilder_simulations import partition, synthetic

STUDIES = Path(__file__).parents[2] / "simulations" / "studies"
NAMES = ["breast-cancer", "card-fraud", "card-fraud-person"]
SEEDS = range(10)


def load(name: str, *overrides: str) -> Study:
    return Study.load(STUDIES / f"{name}.toml", overrides)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_that_ships_loads_and_builds_its_model(name: str) -> None:
    study = load(name)

    assert study.study.name == name
    registry.check(registry.initial(study), study)


@pytest.mark.parametrize("name", NAMES)
def test_its_source_fits_its_contract_and_every_site_has_both_classes(
    name: str,
) -> None:
    study = load(name)
    assert study.simulation is not None
    rows = synthetic.generate(study.simulation.source, study.simulation.seed)

    sites, holdout, sizes = partition.split(
        rows, study.simulation, study.evaluation.rows
    )

    for part in (*sites.values(), holdout):
        examples = tables.encode(part, study.data)
        assert len(examples) == part.num_rows
        assert set(np.unique(examples.targets)) == {0, 1}
    for site, part in sites.items():
        assert 0.9 * part.num_rows < sizes[site] <= part.num_rows


@pytest.mark.parametrize("name", NAMES)
def test_its_bounds_let_every_number_vary(name: str) -> None:
    study = load(name)
    assert study.simulation is not None
    rows = synthetic.generate(study.simulation.source, study.simulation.seed)

    inputs = tables.encode(rows, study.data).inputs

    assert inputs.std(axis=0).min() > 0.05


def test_card_fraud_knows_every_category_that_its_source_makes() -> None:
    study = load("card-fraud")
    rows = synthetic.generate("card-payments", 1)

    assert isinstance(study.data, TableData)
    for name, column in study.data.columns.items():
        if isinstance(column, CategoryColumn):
            assert set(rows[name].to_pylist()) == set(column.values)


def mean_auc(tmp_path: Path, name: str, *overrides: str) -> float:
    from guilder_simulations.engine import simulate

    return mean(
        simulate(
            load(name, f"simulation.seed={seed}", *overrides), tmp_path / str(seed)
        ).metrics["auc"]
        for seed in SEEDS
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_breast_cancer_reaches_its_auc_at_epsilon_three(tmp_path: Path) -> None:
    assert load("breast-cancer").privacy.epsilon == 3.0

    assert mean_auc(tmp_path, "breast-cancer") >= 0.97


@pytest.mark.slow(minutes=2)
@pytest.mark.timeout(1800)
def test_card_fraud_loses_little_to_privacy(tmp_path: Path) -> None:
    private = mean_auc(tmp_path / "private", "card-fraud")

    bare = mean_auc(tmp_path / "bare", "card-fraud", 'privacy.mechanism="none"')

    assert private >= bare - 0.02
    assert 0.98 <= bare <= 0.997  # neither hopeless nor trivial
