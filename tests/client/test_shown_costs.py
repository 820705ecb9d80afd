"""What a study costs and sends is shown before anybody decides, whatever its kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
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
