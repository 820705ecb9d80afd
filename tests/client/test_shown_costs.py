"""What a study costs and sends is shown before anybody decides, whatever its kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner

from guilder.cli import app
from guilder_client import policy
from guilder_client.site import Site
from guilder_shared.messages import Offer, Verdict
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

SiteAt = Callable[..., Site]
COLUMN = {"kind": "number", "low": 0.0, "high": 1.0}
PRIVACY: dict[str, Any] = {"unit": "record", "mechanism": "site-noise"}
PRIVACY |= {"epsilon": 2.0, "delta": 1e-6}
PARTS: dict[str, Any] = {"schema": 1, "aggregation": {"min_sites": 1, "spare_turns": 1}}
TRAINED = PARTS | {
    "study": {"name": "t", "recipe": "tabular-classification", "purpose": "p"},
    "data": {"kind": "table", "dataset": "d", "target": "y", "columns": {"x": COLUMN}},
    "model": {"name": "logistic"},
    "training": {"rounds": 4, "local_steps": 1, "sample_rate": 1.0, "learning_rate": 1},
    "privacy": PRIVACY | {"clip_norm": 1.0},
    "evaluation": {"on": "charged", "share": 0.5, "every": 2},
}
ASKED = PARTS | {
    "study": {"name": "t", "recipe": "statistics", "purpose": "p"},
    "data": {"kind": "columns", "dataset": "d", "columns": {"x": COLUMN}},
    "statistics": {
        "noise": "gaussian",
        "ask": {"rows": {"ask": "count"}, "x": {"ask": "mean", "column": "x"}},
    },
    "privacy": PRIVACY,
}
LOUD = TRAINED | {"privacy": TRAINED["privacy"] | {"epsilon": 5.9}}
SHOWN = {
    "metrics by round": (
        TRAINED,
        [
            "takes epsilon 2 at delta 1e-06 for each record, in 6 turns",
            "holds out 20% of the records, never trained on, and measures the model "
            "every 2 rounds on them: each pays at most epsilon 1 for it",
            "remaining 4",
            "at most 6 turns: one sealed update of 2 noised numbers",
            "in 2 of these turns, also or only 35 noised numbers of the units held out",
        ],
    ),
    "statistics": (
        ASKED,
        [
            "takes epsilon 2 at delta 1e-06 for each record, in 2 turns",
            "trains nothing; asks for rows (count of rows), x (mean of x)",
            "remaining 4",
            "at most 2 turns: one sealed vector of 4 noised numbers",
        ],
    ),
}


def guilder(folder: Path, *words: str) -> Any:
    return CliRunner().invoke(app, [*words, "--site", str(folder / "site.toml")])


def allowing(text: str) -> str:
    return text.replace('recipes = ["', 'recipes = ["statistics", "')


@pytest.mark.parametrize("kind", SHOWN)
def test_its_cost_and_what_leaves_are_shown_before_anybody_decides(
    kind: str, site_at: SiteAt, tmp_path: Path
) -> None:
    parts, lines = SHOWN[kind]
    study = Study.model_validate(parts)
    (tmp_path / "data.csv").write_text("x,y\n0.2,0\n0.9,1\n")

    def change(text: str) -> str:
        return text.replace('"auto"', '"ask"').replace(
            'recipes = ["', 'recipes = ["statistics", "'
        )

    site_at(
        tmp_path, lambda text: change(text).replace('"ask"', '"auto"')
    ).ledger.shut()
    site = site_at(tmp_path, change)
    offer = Offer("run", study.canonical(), accounting.solve(study))
    assert policy.consider(site, offer).verdict == Verdict.BUSY

    shown = guilder(tmp_path, "client", "studies", "show", "t")

    assert shown.exit_code == 0, shown.output
    for line in lines:
        assert line in shown.stdout
    assert site.ledger.grants() == []


def forecast(folder: Path, parts: dict[str, Any], *changes: str) -> Any:
    file = folder / "study.toml"
    file.write_text(tomli_w.dumps(parts))
    words = [word for each in changes for word in ("--set", each)]
    return guilder(folder, "privacy", "forecast", str(file), *words)


@pytest.mark.parametrize(
    ("parts", "change", "told"),
    [
        (LOUD, "privacy.delta=9e-6", "nearest that fits: delta 5e-06, at epsilon 5.9"),
        (TRAINED, "privacy.epsilon=7", "nearest that fits: epsilon 6 with more noise,"),
        (ASKED, "privacy.epsilon=7", "nearest that fits: epsilon 6 with more noise,"),
        (LOUD, "privacy.delta=0.0009", "GLD-B003"),
        (TRAINED, "aggregation.min_sites=1", ""),
        (TRAINED, "privacy.unit=person", "privacy.max_records: missing"),
    ],
)
def test_a_forecast_names_the_nearest_plan_that_fits(
    parts: dict[str, Any], change: str, told: str, site_at: SiteAt, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("x,y\n0.2,0\n0.9,1\n")
    site_at(tmp_path, allowing).ledger.shut()

    found = forecast(tmp_path, parts, change)

    assert told in found.output + str(found.exception or "")
    assert (found.exit_code == 0) == (told == "")


def test_a_forecast_says_what_this_site_does_not_allow(
    site_at: SiteAt, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("x,y\n0.2,0\n0.9,1\n")
    site_at(tmp_path, lambda text: text.replace("= 100", "= 2000000")).ledger.shut()

    large = forecast(tmp_path, TRAINED)
    asked = forecast(tmp_path, ASKED)

    assert "NOT ALLOWED HERE: GLD-S032" in large.output
    assert "privacy.delta at most 1e-07" in large.output
    assert "NOT ALLOWED HERE: GLD-S001" in asked.output
    assert (large.exit_code, asked.exit_code) == (4, 4)
