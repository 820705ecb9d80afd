"""Studies that measure or ask for figures: three verifiers recompute what they cost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guilder_shared import reports
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.privacy.ledger.grants import asked_by
from guilder_shared.study import Study

Verdicts = Callable[..., set[str]]
COUNTS = {"rows": {"ask": "count"}, "ages": {"ask": "histogram", "column": "k"}}
COLUMN = {"kind": "category", "values": ["a", "b"]}


def study_of(noise: str) -> Study:
    """Of statistics with this noise; or one that measures: "charged", "by-round"."""
    whole: dict[str, Any] = {
        "schema": 1,
        "study": {"name": "f", "recipe": "statistics", "purpose": "p"},
        "data": {"kind": "columns", "dataset": "d", "columns": {"k": COLUMN}},
        "privacy": {"unit": "record", "mechanism": "site-noise"}
        | {"epsilon": 1.0, "delta": 1e-6, "clip_norm": 1.0},
        "aggregation": {"min_sites": 2},
    }
    if noise not in ("charged", "by-round"):
        return Study.model_validate(
            {**whole, "statistics": {"noise": noise, "ask": COUNTS}}
        )
    training = {"rounds": 4, "local_steps": 3, "sample_rate": 0.1, "learning_rate": 1.0}
    return Study.model_validate(
        whole
        | {
            "study": {"name": "f", "recipe": "tabular-classification", "purpose": "p"},
            "data": {"kind": "table", "dataset": "d", "target": "y"}
            | {"columns": {"k": COLUMN}},
            "model": {"name": "logistic"},
            "training": training,
            "evaluation": {"on": "charged", "rows": 0.2, "share": 1.0}
            | ({"every": 2} if noise == "by-round" else {}),
        }
    )


def report(folder: Path, noise: str, change: Callable[[Any], None]) -> bytes:
    """Of a site that took every turn; `change` edits the event that it charged."""
    study = study_of(noise)
    plan = accounting.solve(study)
    event = accounting.turn_event(study, plan)
    change(event)
    officer = Officer(SigningKey.generate(), site="bank-a")
    named: Any = {"site": "bank-a", "officer": officer.public_hex}
    asked = asked_by(study)
    with Ledger.open(None, SigningKey.generate(), **named) as ledger:
        ledger.admit(officer.budget("people", 3.0, 1e-5, ["d"]))
        ledger.admit(officer.approve(study.digest(), "f", epsilon=1.0, delta=1e-6))
        grant = ledger.reserve(
            run_id="run",
            server="https://s",
            study_digest=study.digest(),
            study_name="f",
            dataset="d",
            recipe=asked.recipe,
            unit=asked.unit,
            cohort=asked.cohort,
            study_epsilon=1.0,
            study_delta=1e-6,
            turn_event=event,
            num_turns=plan.num_turns,
            meta={"study": study.canonical().decode(), "plan": plan.facts()},
        ).grant_id
        for turn_no in range(1, (study.measuring_round or 0) + 1):
            measures = study.measures(turn_no)
            ledger.spend(grant, turn_no, f"{turn_no:064x}", measures=measures)
            ledger.seal(grant, turn_no, f"{turn_no + 99:064x}")
        ledger.close(grant)
        return reports.write(ledger, folder).read_bytes()


@pytest.mark.parametrize(
    "noise", ["charged", "by-round", "gaussian", "laplace", "discrete-gaussian"]
)
def test_all_verifiers_find_its_report_sound(
    noise: str, tmp_path: Path, verdicts: Verdicts
) -> None:
    assert verdicts(report(tmp_path, noise, lambda _event: None)) == {""}


def louder(event: Any) -> None:
    """As if the noise were twice what the plan says."""
    parts = event["of"] if isinstance(event["of"], list) else [event]
    for part in parts:
        step = part["of"]
        step = step.get("of", step)
        step["noise_multiplier"] *= 2


@pytest.mark.parametrize("noise", ["charged", "by-round", "gaussian", "laplace"])
def test_all_verifiers_find_an_event_that_its_study_does_not_make(
    noise: str, tmp_path: Path, verdicts: Verdicts
) -> None:
    assert verdicts(report(tmp_path, noise, louder)) == {"GLD-I013"}


def test_all_verifiers_find_one_question_charged_for_two(
    tmp_path: Path, verdicts: Verdicts
) -> None:
    forged = report(tmp_path, "laplace", lambda event: event.update(count=1))

    assert verdicts(forged) == {"GLD-I013"}
