"""Refusals are told once, and a server that insists fills no disk."""

from pathlib import Path

import pytest

from guilder_shared.errors import BudgetSpent
from guilder_shared.identity import SigningKey
from guilder_shared.privacy.ledger import Budget, Ledger, refusals


def test_a_server_that_insists_does_not_fill_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MOST", 3)
    budget = Budget("patients", 3.0, 1e-5, ("scans",))
    key, path = SigningKey.generate(), tmp_path / "ledger.db"

    for number in range(5):
        with (
            Ledger.open(path, key, site="a", budgets=[budget]) as ledger,
            pytest.raises(BudgetSpent, match="epsilon"),
        ):
            ledger.reserve(
                run_id=f"run-{number}",
                server="https://server",
                study_digest="d" * 64,
                study_name="s",
                dataset="scans",
                study_epsilon=3.5,
                study_delta=1e-6,
                turn_event={"event": "gaussian", "noise_multiplier": 0.5},
                num_turns=4,
                meta={},
            )

    with Ledger.open(path, key, site="a", budgets=[budget]) as ledger:
        assert len([e for e in ledger.entries() if e.kind == "refuse"]) == 3
