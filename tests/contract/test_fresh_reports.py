"""What Guilder writes today, all three verifiers take: no member that one has not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guilder_shared import reports
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.reports import consortium
from guilder_shared.reports.export import export
from guilder_shared.study import Study
from guilder_simulations.engine import simulate

Verdicts = Callable[..., set[str]]
ROWS = "who,x,y\n" + "".join(f"p{n % 30},{n % 10 / 10},{n % 2}\n" for n in range(120))
COLUMNS = {"x": {"kind": "number", "low": 0, "high": 1}}
PERSON = {"unit": "person", "max_records": 3, "max_sites_per_person": 2}
ASKED: dict[str, Any] = {
    "study": {"name": "t", "recipe": "statistics", "purpose": "p"},
    "data": {"kind": "columns", "dataset": "d", "person": "who", "columns": COLUMNS},
    "statistics": {
        "noise": "gaussian",
        "ask": {"rows": {"ask": "count"}, "x": {"ask": "mean", "column": "x"}},
    },
}
# What each kind of study has that others have not.
KINDS: dict[str, dict[str, Any]] = {
    "sampled": {"training": {"sample_rate": 0.1}},
    "persons": {"privacy": PERSON},
    "site": {"privacy": {"unit": "site"}},
    "none": {"privacy": {"mechanism": "none"}},
    "charged": {"evaluation": {"on": "charged", "rows": 0.4, "share": 1.0, "every": 1}},
    "statistics": {**ASKED, "privacy": {"unit": "person"}},
}


def study_of(kind: str, source: Path) -> Study:
    whole: dict[str, Any] = {
        "schema": 1,
        "study": {"name": "t", "recipe": "tabular-classification", "purpose": "p"},
        "data": {"kind": "table", "dataset": "d", "target": "y", "person": "who"}
        | {"columns": COLUMNS},
        "model": {"name": "logistic"},
        "training": {"rounds": 2, "local_steps": 1, "sample_rate": 1.0}
        | {"learning_rate": 1.0},
        "privacy": {"unit": "record", "mechanism": "site-noise", "clip_norm": 1.0}
        | {"epsilon": 1.0, "delta": 9e-4},
        "aggregation": {"min_sites": 2, "spare_turns": 1},
        "evaluation": {"on": "none"},
        "simulation": {"sites": 2, "source": str(source), "seed": 3}
        | {"partition": {"kind": "iid"}},
    }
    for part, lines in KINDS[kind].items():
        whole[part] = {**({} if part == "data" else whole.get(part, {})), **lines}
    if "statistics" in whole:
        for unused in ("model", "training", "evaluation"):
            del whole[unused]
    return Study.model_validate(whole)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "rows.csv"
    path.write_text(ROWS)
    return path


@pytest.fixture(scope="module")
def run_of(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of a simulated study of each kind, run when first asked for."""
    done: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in done:
            folder = tmp_path_factory.mktemp(kind)
            done[kind] = simulate(study_of(kind, source), folder).run_dir
        return done[kind]

    return run


RunOf = Callable[[str], Path]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind == "sampled" else ())
        for kind in KINDS
    ],
)
def test_all_verifiers_take_what_a_simulation_writes(
    kind: str, run_of: RunOf, tmp_path: Path, verdicts: Verdicts
) -> None:
    paths = sorted((run_of(kind) / "reports").glob("*.report.json"))

    together = tmp_path / "consortium.json"
    consortium.write(consortium.combine(paths), together)

    assert len(paths) == 2
    for path in (*paths, together):
        assert verdicts(path.read_bytes()) == {""}, path.name


def test_all_verifiers_take_what_becomes_of_a_site_later(
    run_of: RunOf, tmp_path: Path, verdicts: Verdicts
) -> None:
    folder = run_of("persons") / "sites" / "site-1"
    key = SigningKey.load(folder / "signing.key")
    officer = Officer(SigningKey.load(folder / "officer.key"), site="site-1")
    named: Any = {"site": "site-1", "officer": officer.public_hex}

    with Ledger.open(folder / "ledger.db", key, **named) as ledger:
        ledger.exclude("d", "e" * 64, in_force=True)
        ledger.exclude("d", "f" * 64, in_force=False)
        ledger.admit(officer.excuse("https://gone", days=2))
        path = reports.write(ledger, tmp_path)
        whole = export(ledger)

    assert verdicts(path.read_bytes(), ledger=whole) == {""}
    assert verdicts(whole) == {""}


def members(value: Any, place: str = "") -> set[str]:
    """Every place of a report that has a name: `studies.guarantee.unit`, say."""
    if isinstance(value, list):
        return {found for each in value for found in members(each, place)}
    if not isinstance(value, dict):
        return set()
    found = set()
    for name, member in value.items():
        here = f"{place}.{name}".lstrip(".")
        found |= {here} | members(member, here)
    return found


def test_what_only_some_reports_have_is_among_these(run_of: RunOf) -> None:
    found = set[str]()
    for kind in ("persons", "charged"):
        path = run_of(kind) / "reports" / "site-1.report.json"
        found |= members(json.loads(path.read_bytes()))

    assert found >= {
        "budgets.by_unit.person",
        "studies.events.unit",
        "studies.guarantee.across_sites.epsilon",
        "studies.guarantee.caveat",
        "studies.totals.evidence.prv",
        "ledger.entries.body.measures",
    }
