"""One study, deployed: real processes, mutual TLS, real ledgers."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from guilder_simulations.engine import simulate

Founding = Any  # the fixture `found`; see conftest.py


def test_a_study_runs_to_its_end_and_every_report_verifies(found: Founding) -> None:
    hospitals = found()
    hospitals.start_all()

    run_id = hospitals.run()
    last = hospitals.outcome(run_id)

    assert last["kind"] == "run-finished", last
    for site in hospitals.sites:
        (study,) = hospitals.verified(site).studies
        assert (study.num_turns_spent, study.num_turns) == (6, 8)
        assert study.epsilon == pytest.approx(3.0)
        assert not study.simulated
    sealed = list((hospitals.folder / "sites").glob("*/state/turns/*"))
    assert sealed == []  # every receipt is in its chain


def test_deployed_and_simulated_with_the_test_seed_are_the_same(
    found: Founding,
) -> None:
    hospitals = found(allow_unprotected=True)
    study = hospitals.study_with("privacy.mechanism=none", "training.test_seed=5")
    hospitals.start_all()

    run_id = hospitals.run(study)
    last = hospitals.outcome(run_id)
    simulated = simulate(study, hospitals.folder / "simulated")

    assert last["kind"] == "run-finished", last
    deployed = load(hospitals.model(run_id, 6))
    for name, weights in simulated.model.items():
        np.testing.assert_allclose(deployed[name], weights, atol=1e-6)


def test_an_exhausted_budget_stops_the_run_with_the_sites_name_and_exit_code_4(
    found: Founding,
) -> None:
    hospitals = found()
    poor = hospitals.site_file("site-2")
    poor.write_text(poor.read_text().replace("epsilon = 6.0", "epsilon = 3.5"))
    hospitals.sign("site-2")
    hospitals.start_all()
    assert hospitals.outcome(hospitals.run())["kind"] == "run-finished"

    again = guilder("run", "submit", "--watch", *hospitals.arguments(), check=False)

    assert again.returncode == 4
    assert "site 'site-2'" in again.stderr
    assert "GLD-B003" in again.stderr
    assert [len(grant.turns) for grant in hospitals.grants("site-2")] == [6]


def test_a_study_without_privacy_is_refused_where_the_policy_does_not_allow_it(
    found: Founding,
) -> None:
    hospitals = found()
    hospitals.start_all()

    last = hospitals.outcome(
        hospitals.run(hospitals.study_with("privacy.mechanism=none"))
    )

    assert (last["id"], last["exit_code"]) == ("GLD-S010", 4)
    assert "GLD-S002" in last["why"]
    assert all(hospitals.grants(site) == [] for site in hospitals.sites)


def test_a_missing_column_is_named_before_anything_is_charged(found: Founding) -> None:
    import pyarrow.parquet as pq

    hospitals = found()
    path = hospitals.site_file("site-3").parent / "rows.parquet"
    table = pq.read_table(path)
    renamed = [f"{n}s" if n == "mean_area" else n for n in table.column_names]
    pq.write_table(table.rename_columns(renamed), path)
    hospitals.start_all()

    last = hospitals.outcome(hospitals.run())

    assert last.get("exit_code") == 4, last
    assert "'site-3'" in last["what"]
    assert "mean_area" in last["why"]
    assert hospitals.grants("site-3") == []


def guilder(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The command itself, as a user types it."""
    return subprocess.run(
        [sys.executable, "-m", "guilder", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=check,
    )
