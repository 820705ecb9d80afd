"""Refusals are told once, and a server that insists fills no disk."""

from pathlib import Path
from typing import Any

import pytest

from guilder_shared.errors import BudgetSpent
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy.ledger import Ledger, refusals


def test_a_server_that_insists_does_not_fill_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MOST", 3)
    officer = Officer(SigningKey.generate(), site="a")
    orders = [
        officer.budget("patients", 3.0, 1e-5, ["scans"]),
        officer.rule("any", recipes=["r"], largest_epsilon=9, largest_delta=0.5),
    ]
    named: Any = {"site": "a", "officer": officer.public_hex}
    key, path = SigningKey.generate(), tmp_path / "ledger.db"

    for number in range(5):
        with (
            Ledger.open(path, key, orders=orders, **named) as ledger,
            pytest.raises(BudgetSpent, match="epsilon"),
        ):
            ledger.reserve(
                run_id=f"run-{number}",
                server="https://server",
                study_digest="d" * 64,
                study_name="s",
                dataset="scans",
                recipe="r",
                unit="record",
                cohort=2,
                study_epsilon=3.5,
                study_delta=1e-6,
                turn_event={"event": "gaussian", "noise_multiplier": 0.5},
                num_turns=4,
                meta={},
            )

    with Ledger.open(path, key, **named) as ledger:
        assert len([e for e in ledger.entries() if e.kind == "refuse"]) == 3
