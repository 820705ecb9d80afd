"""A site's ledger with studies of several kinds, for reports and their pages."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from guilder_shared.errors import BudgetSpent
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study

LOANS = Path(__file__).parents[2] / "loans.toml"
KEY, OFFICERS_KEY = SigningKey.generate(), SigningKey.generate()


def make_study(name: str, unit: str = "record", **privacy: Any) -> Study:
    promise: dict[str, Any] = {"unit": unit, **privacy}
    if unit == "person":
        promise = {"max_records": 5, "max_sites_per_person": 2, **promise}
    changes = (f"privacy.{key}={json.dumps(value)}" for key, value in promise.items())
    return Study.load(LOANS, (f"study.name={json.dumps(name)}", *changes))


def make_ledger(*studies: Study, site: str = "bank-a", key: SigningKey = KEY) -> Ledger:
    """Of a site that accepted these studies and took their first turn."""
    officer = Officer(OFFICERS_KEY, site=site)
    orders = [
        officer.budget("clients", 4.0, 1e-5, ["loans"], None, (365, 3.5)),
        officer.public_size("loans", 2000, 1500),
        officer.rule(
            "of-2026",
            recipes=["tabular-classification", "statistics"],
            largest_epsilon=3,
            largest_delta=1e-5,
            allow_unprotected=True,
        ),
    ]
    named: Any = {"site": site, "officer": officer.public_hex}
    ledger = Ledger.open(None, key, orders=orders, **named)
    for each in studies:
        plan = accounting.solve(each)
        event = accounting.turn_event(each, plan)
        grant = ledger.reserve(
            run_id=f"run-{each.study.name}",
            server="https://server",
            study_digest=each.digest(),
            study_name=each.study.name,
            dataset="loans",
            recipe=each.study.recipe,
            unit=each.privacy.unit,
            cohort=1,
            study_epsilon=each.privacy.epsilon,
            study_delta=each.privacy.delta,
            turn_event=event,
            num_turns=plan.num_turns,
            evidence=accounting.evidence(event, plan.num_turns, each.privacy.delta),
            meta={"study": each.canonical().decode(), "plan": asdict(plan)},
        )
        ledger.spend(grant.grant_id, 1, "h" * 64)
        ledger.seal(grant.grant_id, 1, "a" * 64)
    return ledger


@pytest.fixture(scope="session")
def keys() -> tuple[SigningKey, SigningKey]:
    """The site's and its officer's."""
    return KEY, OFFICERS_KEY


@pytest.fixture(scope="session")
def study() -> Callable[..., Study]:
    """Makes a study of loans."""
    return make_study


@pytest.fixture(scope="session")
def ledger_of() -> Callable[..., Ledger]:
    """Makes the ledger of a site that accepted some studies."""
    return make_ledger


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    """By record, by person, without noise; and one study that was refused."""
    plain = make_study("plain", mechanism="none")
    ledger = make_ledger(make_study("risk"), make_study("default", "person"), plain)
    with pytest.raises(BudgetSpent):
        ledger.reserve(
            run_id="late",
            server="https://server",
            study_digest="e" * 64,
            study_name="too-much",
            dataset="loans",
            recipe="tabular-classification",
            unit="record",
            cohort=1,
            study_epsilon=2.9,
            study_delta=1e-6,
            turn_event={"event": "gaussian", "noise_multiplier": 0.5},
            num_turns=1,
            meta={},
        )
    return ledger
