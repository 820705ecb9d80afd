"""Dealing a source to sites: by a row's own identity and a public seed."""

from typing import Any

import pyarrow as pa
import pytest

from guilder_shared.errors import DataError
from guilder_shared.study import Simulation
from guilder_simulations import partition

BANKS = pa.table(
    {
        "bank": ["b", "a", "c", None] * 500,
        "amount": [float(n) for n in range(2000)],
        "customer": [n // 40 for n in range(2000)],
    }
)


def simulation(**changes: Any) -> Simulation:
    whole = {
        "sites": 3,
        "source": "none",
        "partition": {"kind": "by", "column": "bank"},
        "seed": 7,
    }
    return Simulation.model_validate(whole | changes)


def test_each_site_has_the_rows_of_its_own_value_in_sorted_order() -> None:
    sites, holdout, _ = partition.split(BANKS, simulation(), 0.2)

    assert {name: set(rows["bank"].to_pylist()) for name, rows in sites.items()} == {
        "site-1": {"a"},
        "site-2": {"b"},
        "site-3": {"c"},
    }
    assert sum(rows.num_rows for rows in sites.values()) + holdout.num_rows == 1500


def test_fewer_sites_than_values_leave_the_other_values_out_of_the_holdout_too() -> (
    None
):
    sites, holdout, _ = partition.split(BANKS, simulation(sites=2), 0.2)

    assert list(sites) == ["site-1", "site-2"]
    assert set(holdout["bank"].to_pylist()) == {"a", "b"}


def test_about_the_asked_share_is_held_out_and_no_row_is_on_both_sides() -> None:
    sites, holdout, _ = partition.split(BANKS, simulation(), 0.2)

    held = set(holdout["amount"].to_pylist())
    dealt = {a for rows in sites.values() for a in rows["amount"].to_pylist()}
    assert not held & dealt
    # 1,500 rows at 0.2: 300, standard deviation 15.5; 5 of them either way
    assert 222 < len(held) < 378


def test_the_same_seed_deals_the_same_rows_and_another_seed_others() -> None:
    one = partition.split(BANKS, simulation(), 0.2)[1]
    again = partition.split(BANKS, simulation(), 0.2)[1]
    other = partition.split(BANKS, simulation(seed=8), 0.2)[1]

    assert one.equals(again)
    assert not one.equals(other)


@pytest.mark.parametrize("dealt", [{"kind": "by", "column": "bank"}, {"kind": "iid"}])
def test_a_row_less_moves_no_other_row(dealt: dict[str, str]) -> None:
    dealing = simulation(partition=dealt)

    whole = partition.split(BANKS, dealing, 0.2)[0]
    without = partition.split(BANKS.slice(1), dealing, 0.2)[0]

    removed = BANKS["amount"][0].as_py()
    for name, rows in whole.items():
        kept = [a for a in rows["amount"].to_pylist() if a != removed]
        assert without[name]["amount"].to_pylist() == kept


def test_without_a_column_rows_are_dealt_evenly_and_independently_of_holdout() -> None:
    dealing = simulation(partition={"kind": "iid"}, sites=4)

    sites, _, _ = partition.split(BANKS, dealing, 0.5)

    # about 1,000 rows over 4 sites: 250, standard deviation 14.8
    assert all(170 < rows.num_rows < 330 for rows in sites.values())


def test_all_rows_of_one_identity_go_the_same_way() -> None:
    dealing = simulation(partition={"kind": "iid"})

    sites, holdout, _ = partition.split(BANKS, dealing, 0.3, identity="customer")

    groups = [set(rows["customer"].to_pylist()) for rows in (*sites.values(), holdout)]
    assert sum(len(group) for group in groups) == len(set.union(*groups)) == 50


def test_public_sizes_are_rounded_down_to_two_digits_unless_the_study_has_them() -> (
    None
):
    typed = simulation(public_sizes=[10, 20, 30])

    rounded = partition.split(BANKS, simulation(), 0.0)[2]
    given = partition.split(BANKS.slice(0, 37), typed, 0.0)[2]

    assert rounded == {"site-1": 500, "site-2": 500, "site-3": 500}
    assert given == {"site-1": 10, "site-2": 20, "site-3": 30}


@pytest.mark.parametrize(
    ("num_rows", "public_size"),
    [(15_987, 15_000), (114, 110), (47, 47), (3, 3), (0, 1)],
)
def test_a_public_size_has_two_digits_and_is_never_zero(
    num_rows: int, public_size: int
) -> None:
    rows = pa.table({"bank": ["a"] * num_rows + ["b"], "n": range(num_rows + 1)})
    dealing = simulation(sites=1, partition={"kind": "iid"})

    sizes = partition.split(rows.slice(0, num_rows), dealing, 0.0)[2]

    assert sizes == {"site-1": public_size}


def test_a_partition_that_the_source_cannot_serve_is_refused() -> None:
    missing = simulation(partition={"kind": "by", "column": "branch"})

    with pytest.raises(DataError, match="branch") as no_column:
        partition.split(BANKS, missing, 0.2)
    with pytest.raises(DataError, match="3 values") as too_few:
        partition.split(BANKS, simulation(sites=4), 0.2)

    assert no_column.value.error_id == "GLD-D005"
    assert too_few.value.error_id == "GLD-D006"
