"""Studies that protect persons or whole sites, as a site sees them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guilder_client import policy, turn
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_shared.messages import (
    Answer,
    Offer,
    Plan,
    TurnRequest,
    Verdict,
    pack,
    unpack,
)
from guilder_shared.models import registry
from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.settings.mistakes import FileError
from guilder_shared.study import Study

OpenSite = Callable[..., Site]
PLAN = Plan(None, 3, SENSITIVITY_SLACK)
ROWS = "x,y,who\n0.2,0,ann\n0.9,1,ann\n0.4,0,bob\n0.9,1,\n"


def study(unit: str, **privacy: Any) -> Study:
    if unit == "person":
        privacy = {"max_records": 4, **privacy}
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "t", "recipe": "tabular-classification", "purpose": "p"},
            "data": {
                "kind": "table",
                "dataset": "d",
                "target": "y",
                "person": "who",
                "columns": {"x": {"kind": "number", "low": 0.0, "high": 1.0}},
            },
            "model": {"name": "logistic"},
            "training": {
                "rounds": 2,
                "local_steps": 1,
                "sample_rate": 1.0,
                "learning_rate": 1.0,
            },
            # Without noise, so that numbers can be compared.
            "privacy": {
                "unit": unit,
                "mechanism": "none",
                "epsilon": 2.0,
                "delta": 1e-6,
                "clip_norm": 100.0,
                **privacy,
            },
            "aggregation": {"min_sites": 1, "spare_turns": 1, "reply_quantum_s": 0},
            "evaluation": {"on": "none"},
        }
    )


@pytest.fixture
def opened(site_at: Callable[..., Site], tmp_path: Path) -> OpenSite:
    def make(persons: int | None = 10, budget_unit: str = "", rows: str = ROWS) -> Site:
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "data.csv").write_text(rows)

        def edit(text: str) -> str:
            if persons is not None:
                typed = f"public_persons = {persons}\n[policy]"
                text = text.replace("[policy]", typed)
            if budget_unit:
                text += f'unit = "{budget_unit}"\n'
            return text

        return site_at(folder, edit, unprotected="true")

    return make


def offered(site: Site, wanted: Study) -> Answer:
    return policy.consider(site, Offer("run-1", wanted.canonical(), PLAN))


def update_of(site: Site, wanted: Study) -> dict[str, np.ndarray]:
    """What one turn sends."""
    model = pack(registry.initial(wanted))
    grant_id = offered(site, wanted).grant_id
    request = TurnRequest("run-1", grant_id, 1, 1, wanted.digest(), model)
    reply = turn.take(site, request)
    assert reply.verdict == Verdict.DONE
    return unpack(reply.update, registry.shapes(wanted))


def test_nobody_counts_persons_that_the_officer_has_not_typed(
    opened: OpenSite,
) -> None:
    answer = offered(opened(persons=None), study("person"))

    assert answer.verdict == Verdict.REFUSED_BY_POLICY
    assert "GLD-S030" in answer.reason


def test_a_dataset_without_the_persons_column_is_refused_unread(
    opened: OpenSite,
) -> None:
    site = opened(rows="x,y\n0.2,0\n")

    answers = [offered(site, study(unit)) for unit in ("person", "record")]

    assert answers[0].verdict == Verdict.REFUSED_BY_POLICY
    assert "GLD-D003" in answers[0].reason
    assert answers[1].verdict == Verdict.ACCEPTED  # nobody reads it there


@pytest.mark.parametrize(
    ("unit", "weight"), [("record", 100), ("person", 10), ("site", 1)]
)
def test_a_site_weighs_as_many_units_as_it_says_in_public(
    opened: OpenSite, unit: str, weight: int
) -> None:
    answer = offered(opened(), study(unit))

    assert (answer.verdict, answer.public_size) == (Verdict.ACCEPTED, weight)


@pytest.mark.parametrize(
    ("unit", "num_rows", "divisor"),
    [("record", 4, 100), ("person", 3, 10), ("site", 4, 100)],
)
def test_the_divisor_is_the_public_number_of_what_is_counted(
    opened: OpenSite, unit: str, num_rows: int, divisor: int
) -> None:
    wanted = study(unit)
    start = registry.initial(wanted)
    rows = np.array([[-0.6, 0], [0.8, 1], [-0.2, 0], [0.8, 1]])[:num_rows]

    update = update_of(opened(), wanted)

    logits = rows[:, 0] * start["0.weight"].item() + start["0.bias"].item()
    errors = 1 / (1 + np.exp(-logits)) - rows[:, 1]
    assert update["0.bias"].item() == pytest.approx(-errors.sum() / divisor, rel=1e-5)


@pytest.mark.parametrize("held", ["record", "person", "site"])
@pytest.mark.parametrize("unit", ["record", "person", "site"])
def test_a_budget_of_one_unit_takes_studies_of_that_unit(
    opened: OpenSite, held: str, unit: str
) -> None:
    answer = offered(opened(budget_unit=held), study(unit))

    assert (answer.verdict == Verdict.ACCEPTED) == (held == unit)
    assert ("GLD-S031" in answer.reason) == (held != unit)


def test_more_persons_than_rows_are_a_mistake_of_the_file(opened: OpenSite) -> None:
    with pytest.raises(FileError, match="public_persons"):
        opened(persons=101)


def test_the_persons_line_of_a_new_site_file_is_a_comment(
    site_at: Callable[..., Site], tmp_path: Path
) -> None:
    site_at(tmp_path / "site")

    settings = SiteFile.load(tmp_path / "site" / "site.toml")
    assert settings.data["d"].public_persons is None
    assert "# public_persons" in (tmp_path / "site" / "site.toml").read_text()
