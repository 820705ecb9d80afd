"""Generators: made-up rows that follow from a seed, on every machine alike."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from guilder_shared.errors import DataError
from guilder_simulations import card_payments, synthetic


@pytest.fixture(scope="module")
def payments() -> pa.Table:
    return synthetic.generate("card-payments", 7)


def digest(table: pa.Table) -> str:
    """SHA-256 of all cells as text: the same whatever Arrow's memory looks like."""
    hashed = hashlib.sha256()
    for name in table.column_names:
        texts = pc.cast(table.column(name), pa.string()).to_pylist()
        hashed.update("\n".join([name, *texts]).encode())
    return hashed.hexdigest()


def test_the_payments_of_a_seed_never_change(payments: pa.Table) -> None:
    assert digest(payments) == (
        "36408b8ad64308011fd07b9ff8f2008e789ac789562d6d106953c9add7fba1a6"
    )


def test_another_seed_makes_other_payments(payments: pa.Table) -> None:
    assert digest(synthetic.generate("card-payments", 8)) != digest(payments)


def test_each_of_four_banks_has_twenty_thousand_payments(payments: pa.Table) -> None:
    counts = payments.group_by("bank").aggregate([("fraud", "count")]).to_pylist()

    assert {row["bank"]: row["fraud_count"] for row in counts} == dict.fromkeys(
        ["bank-a", "bank-b", "bank-c", "bank-d"], 20_000
    )


def test_between_one_and_five_per_cent_of_a_banks_payments_are_fraud(
    payments: pa.Table,
) -> None:
    rates = payments.group_by("bank").aggregate([("fraud", "mean")])

    assert all(0.01 <= rate <= 0.05 for rate in rates["fraud_mean"].to_pylist())


def test_banks_differ_in_amounts_in_kinds_and_in_their_fraud(
    payments: pa.Table,
) -> None:
    def means(rows: pa.Table, column: str) -> list[float]:
        found = rows.group_by("bank").aggregate([(column, "mean")])
        return sorted(found[f"{column}_mean"].to_pylist())

    amounts = means(payments, "amount")
    frauds = payments.filter(pc.equal(payments["fraud"], 1))
    present = means(frauds, "card_present")

    assert amounts[-1] > 1.8 * amounts[0]
    assert present[0] < 0.2
    assert present[-1] > 0.8


def test_customers_and_terminals_belong_to_one_bank_and_come_again(
    payments: pa.Table,
) -> None:
    for column in ("customer_id", "terminal_id"):
        pairs = payments.group_by(["bank", column]).aggregate([])
        names = pc.unique(payments[column])

        assert pairs.num_rows == len(names)
        assert payments.num_rows > 10 * len(names)


def test_hour_and_weekday_are_those_of_the_time_and_rows_are_in_its_order(
    payments: pa.Table,
) -> None:
    bank = payments.filter(pc.equal(payments["bank"], "bank-c"))
    times = bank["time"]

    assert pc.equal(pc.hour(times), bank["hour"]).to_pylist() == [True] * 20_000
    assert pc.all(pc.equal(pc.day_of_week(times), bank["weekday"])).as_py()
    assert times.to_pylist() == sorted(times.to_pylist())


@pytest.mark.parametrize("fraud", card_payments.FRAUDS, ids=lambda fraud: fraud.name)
def test_every_kind_of_fraud_has_a_bank_that_hardly_meets_it(
    fraud: card_payments.Fraud,
) -> None:
    place = card_payments.FRAUDS.index(fraud)
    shares = [bank.frauds[place] for bank in card_payments.BANKS]

    assert min(shares) <= 4
    assert max(shares) >= 30


def test_chances_of_each_bank_sum_to_one() -> None:
    for bank in card_payments.BANKS:
        assert sum(bank.frauds) == 100
        assert sum(bank.kinds) == pytest.approx(1)


def test_breast_cancer_has_its_published_rows() -> None:
    rows = synthetic.generate("breast-cancer", 1)

    assert rows.num_rows == 569
    assert pc.sum(rows["malignant"]).as_py() == 212
    assert "worst_concave_points" in rows.column_names
    assert rows.equals(synthetic.generate("breast-cancer", 2))


def test_a_file_is_a_source_too(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("bank,y\na,1\n")

    rows = synthetic.generate(str(tmp_path / "rows.csv"), 1)

    assert rows.to_pylist() == [{"bank": "a", "y": "1"}]


def test_an_unknown_source_lists_the_generators() -> None:
    with pytest.raises(DataError, match="card-payment") as raised:
        synthetic.generate("card-payment", 1)

    assert raised.value.error_id == "GLD-D007"
    assert "card-payments" in raised.value.why
