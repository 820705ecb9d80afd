"""A study of persons, played: dealt by person, weighed by person, told by person."""

import json
from pathlib import Path
from statistics import mean

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from guilder_shared import tables
from guilder_shared.study import Simulation, Study
from guilder_simulations import partition, synthetic
from guilder_simulations.engine import simulate
from guilder_simulations.studies import path_of

SEEDS = range(10)
SMALL = (
    "training.rounds=2",
    "model.hidden=[4]",
    "privacy.epsilon=8.0",
    "evaluation.rows=0.3",
)


def payments(num: int, seed: int = 3) -> pa.Table:
    """Payments of all banks, so many of each."""
    whole = synthetic.generate("card-payments", seed)
    per_bank = whole.num_rows // 4
    return pa.concat_tables([whole.slice(b * per_bank, num) for b in range(4)])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "payments.parquet"
    parquet.write_table(payments(300), path)
    return path


def study_on(source: Path, *overrides: str) -> Study:
    where = f'simulation.source="{source}"'
    return Study.load(path_of("card-fraud-person"), (*SMALL, where, *overrides))


def test_no_customer_is_on_two_sides(source: Path) -> None:
    study = study_on(source)
    iid = Simulation.model_validate(
        {
            "sites": 3,
            "source": "x",
            "partition": {"kind": "iid"},
            "seed": 7,
        }
    )

    dealt, holdout, _ = partition.split(
        payments(300), iid, 0.3, identity=study.identity
    )

    people = [
        set(part["customer_id"].to_pylist()) for part in (*dealt.values(), holdout)
    ]
    assert all(people)
    assert len(set.union(*people)) == sum(len(each) for each in people)


def test_public_persons_are_rounded_down_and_nobody_is_not_counted() -> None:
    who = [str(n // 2) for n in range(268)] + [None, "", "nan"]
    dealt = {"a": pa.table({"who": who}), "b": pa.table({"who": pa.array([], "str")})}

    assert partition.public_persons(dealt, "who") == {"a": 130, "b": 1}


def test_a_played_study_of_persons_says_so_everywhere(
    source: Path, tmp_path: Path
) -> None:
    study = study_on(source)

    run = simulate(study, tmp_path / "run")

    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert all(
        0 < facts["public_persons"][site] < facts["public_sizes"][site]
        for site in run.epsilon
    )
    report = json.loads((tmp_path / "run/reports/site-1.report.json").read_bytes())
    (told,) = report["studies"]
    assert told["guarantee"]["unit"] == "person"
    assert told["guarantee"]["sampling"].endswith("at most 10 rows of each")
    assert report["budgets"][0]["by_unit"].keys() == {"person"}


def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_rows_nearly(
    source: Path, tmp_path: Path
) -> None:
    study = study_on(source, "privacy.max_records=10000")
    mixed = tmp_path / "mixed.parquet"
    table = parquet.read_table(source)
    order = np.random.default_rng(2).permutation(table.num_rows)
    parquet.write_table(table.take(order), mixed)

    first, again, other = (
        simulate(each, tmp_path / name).model
        for name, each in (
            ("first", study),
            ("again", study),
            ("other", study_on(mixed, "privacy.max_records=10000")),
        )
    )

    for name, weights in first.items():
        assert weights.tobytes() == again[name].tobytes()
        # All records count, so who they are decides, and not where they stand.
        np.testing.assert_allclose(weights, other[name], atol=2e-3)


def test_a_customer_of_two_banks_is_one_contribution_at_each(
    source: Path, tmp_path: Path
) -> None:
    table = parquet.read_table(source)
    place = table.column_names.index("customer_id")
    shared = pa.array(["ann"] * table.num_rows)  # all rows everywhere are hers
    path = tmp_path / "ann.parquet"
    parquet.write_table(table.set_column(place, "customer_id", shared), path)
    bare = ("privacy.mechanism=none", "evaluation.on=none", "training.rounds=1")
    study = study_on(path, *bare, "training.local_steps=1")

    run = simulate(study, tmp_path / "run")

    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert set(facts["public_persons"].values()) == {1}
    from guilder_shared.models import registry

    start = registry.initial(study)
    moved = np.concatenate([(run.model[n] - w).ravel() for n, w in start.items()])
    # Each bank moves by learning rate x C' / 1 person at most; so does their mean.
    most = study.training.learning_rate * study.privacy.clip_norm
    assert 0.1 * most < np.linalg.norm(moved) <= most * (1 + 1e-3)


def test_the_bounds_of_the_study_of_persons_are_those_of_its_sibling() -> None:
    persons = Study.load(path_of("card-fraud-person"))
    records = Study.load(path_of("card-fraud"))

    assert persons.data == records.data
    assert tables.needed(persons.site_contract)[-1] == "customer_id"


@pytest.mark.slow(minutes=2)
@pytest.mark.timeout(1800)
def test_card_fraud_is_learnt_while_each_customer_is_hidden(tmp_path: Path) -> None:
    aucs = [
        simulate(
            Study.load(path_of("card-fraud-person"), (f"simulation.seed={seed}",)),
            tmp_path / str(seed),
        ).metrics["auc"]
        for seed in SEEDS
    ]

    assert mean(aucs) >= 0.98
    assert min(aucs) >= 0.96
