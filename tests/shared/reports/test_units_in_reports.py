"""Whose presence a report speaks of: never one unit's figures as another's."""

import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from guilder_shared import reports
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Plan
from guilder_shared.officer import Officer
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.reports.build import signed_bytes
from guilder_shared.study import Study

KEY = SigningKey.generate()
PLAN = Plan(6.0, 4, accounting.SENSITIVITY_SLACK)


def study(unit: str, rate: float = 1.0, **promise: Any) -> Study:
    privacy = {"unit": unit, "mechanism": "site-noise", "epsilon": 3.0, "delta": 1e-6}
    privacy |= promise
    if unit == "person":
        privacy["max_records"] = 7
    columns = {"amount": {"kind": "number", "low": 0, "high": 9}}
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": unit, "recipe": "tabular-classification", "purpose": "p"},
            "data": {
                "kind": "table",
                "dataset": "loans",
                "target": "default",
                "person": "customer",
                "columns": columns,
            },
            "model": {"name": "logistic"},
            "training": {
                "rounds": 3,
                "local_steps": 2,
                "sample_rate": rate,
                "learning_rate": 1.0,
            },
            "privacy": {**privacy, "clip_norm": 1.0},
            "aggregation": {"min_sites": 1, "spare_turns": 1},
            "evaluation": {"on": "none"},
        }
    )


def ledger_of(*studies: Study) -> Ledger:
    officer = Officer(SigningKey.generate(), site="bank-a")
    orders = [
        officer.budget("clients", 50.0, 1e-4, ["loans"]),
        officer.rule(
            "any",
            recipes=["tabular-classification"],
            largest_epsilon=100,
            largest_delta=0.5,
        ),
    ]
    named: Any = {"site": "bank-a", "officer": officer.public_hex}
    ledger = Ledger.open(None, KEY, orders=orders, **named)
    for each in studies:
        ledger.reserve(
            run_id=f"run-{each.study.name}",
            server="https://server",
            study_digest=each.digest(),
            study_name=each.study.name,
            dataset="loans",
            recipe=each.study.recipe,
            unit=each.privacy.unit,
            cohort=each.aggregation.min_sites,
            study_epsilon=each.privacy.epsilon,
            study_delta=each.privacy.delta,
            turn_event=accounting.turn_event(each, PLAN),
            num_turns=PLAN.num_turns,
            meta={
                "study": each.canonical().decode(),
                "plan": {
                    "noise_multiplier": PLAN.noise_multiplier,
                    "num_turns": PLAN.num_turns,
                    "sensitivity_slack": PLAN.sensitivity_slack,
                },
            },
        )
    return ledger


def report_of(*studies: Study) -> dict[str, Any]:
    return reports.build(ledger_of(*studies))


@pytest.mark.parametrize(
    ("unit", "rate", "adjacency", "sampling"),
    [
        ("record", 1.0, "add or remove one record", "every row in every step"),
        ("record", 0.5, "add or remove one record", "Poisson"),
        (
            "person",
            0.5,
            "add or remove all rows of one person at this site",
            "Poisson over persons, at most 7 rows of each",
        ),
        (
            "person",
            1.0,
            "add or remove all rows of one person at this site",
            "every person in every step, at most 7 rows of each",
        ),
        (
            "site",
            1.0,
            "all rows of this site against none of them; that it takes part is public",
            "the whole site, in every step",
        ),
    ],
)
def test_a_report_names_unit_adjacency_and_sampling(
    tmp_path: Path, unit: str, rate: float, adjacency: str, sampling: str
) -> None:
    ledger = ledger_of(study(unit, rate))

    path = reports.write(ledger, tmp_path)

    (told,) = json.loads(path.read_bytes())["studies"]
    guarantee = told["guarantee"]
    assert (guarantee["unit"], guarantee["adjacency"]) == (unit, adjacency)
    assert guarantee["sampling"] == sampling
    assert adjacency in guarantee["sentence"]
    assert adjacency in reports.verify(path).to_text()
    assert adjacency in path.with_suffix("").with_suffix(".report.html").read_text()


def test_a_persons_report_says_what_its_epsilon_is_not() -> None:
    (told,) = report_of(study("person"))["studies"]

    assert "twice this epsilon" in told["guarantee"]["caveat"]
    assert told["events"][0]["unit"] == "person"


def test_a_report_adds_up_the_sites_that_may_hold_one_person(tmp_path: Path) -> None:
    path = reports.write(ledger_of(study("person", max_sites_per_person=4)), tmp_path)

    reports.verify(path)

    (told,) = json.loads(path.read_bytes())["studies"]
    assert told["guarantee"]["across_sites"] == {
        "max_sites": 4,
        "epsilon": 12.0,
        "delta": 4e-6,
    }
    page = path.with_suffix("").with_suffix(".report.html").read_text()
    assert "epsilon 12 and delta 4e-06 at most" in page


def test_a_record_study_reads_as_it_always_did() -> None:
    report = report_of(study("record"))

    (told,), (budget,) = report["studies"], report["budgets"]
    assert "caveat" not in told["guarantee"]
    assert set(told["events"][0]) == {"event", "num_turns", "num_turns_spent"}
    assert "by_unit" not in budget


def test_a_budget_of_several_units_tells_their_figures_apart() -> None:
    (budget,) = report_of(study("record"), study("person"))["budgets"]

    assert budget["epsilon"]["reserved"] == 6.0  # the filter counts all of them
    assert budget["by_unit"] == {
        "person": {"epsilon": 3.0, "delta": 1e-6},
        "record": {"epsilon": 3.0, "delta": 1e-6},
    }


@pytest.mark.parametrize(
    "place",
    [
        ("studies", 0, "guarantee", "unit"),
        ("studies", 0, "guarantee", "adjacency"),
        ("studies", 0, "events", 0, "unit"),
    ],
)
def test_a_person_claimed_where_records_were_charged_is_found(
    tmp_path: Path, place: tuple[Any, ...]
) -> None:
    path = reports.write(ledger_of(study("record")), tmp_path)
    report = json.loads(path.read_bytes())
    part = report
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = "person"
    report.pop("signature")
    report["signature"] = KEY.sign(signed_bytes(report)).hex()
    path.write_bytes(rfc8785.dumps(report) + b"\n")

    with pytest.raises(IntegrityError) as found:
        reports.verify(path)

    added = place[-1] == "unit" and "events" in place
    assert found.value.error_id == ("GLD-I091" if added else "GLD-I013")
