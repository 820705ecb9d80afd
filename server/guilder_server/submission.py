"""A study becomes a run: its privacy plan is solved, once, and its folder is made.

Also finds the public rows on which a run is measured. Nothing is decided about the
study here and no site is asked.
"""

import difflib
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from guilder_server.runstore import RunStore
from guilder_server.settings import ServerFile
from guilder_shared import tasks
from guilder_shared.errors import StudyError
from guilder_shared.models import features, registry
from guilder_shared.privacy import accounting
from guilder_shared.settings.mistakes import shown
from guilder_shared.study import Study
from guilder_shared.tasks import Examples


def new_run_id(study: Study) -> str:
    """A name that no other run has, at any site."""
    return f"{study.study.name}-{secrets.token_hex(4)}"


def begin(
    folder: Path, study: Study, *, run_id: str, only: Sequence[str] = ()
) -> RunStore:
    """Solve the study's privacy plan and make its run, durably.

    Args:
        folder: The run's folder; made if missing.
        study: Whole, overrides applied.
        run_id: From `new_run_id`.
        only: Names of the sites to take part; empty for all that come.

    Raises:
        StudyError: Its recipe or model is not installed here.
        PlanError: The study's epsilon cannot be met.
    """
    tasks.recipe(study.study.recipe)
    registry.shapes(study)
    facts = {
        "run_id": run_id,
        "mode": "deployed",
        "submitted": time.time(),
        "plan": accounting.solve(study).facts(),
        "only": sorted(only),
    }
    return RunStore.create(folder, study, facts)


def open_or_begin(folder: Path) -> RunStore:
    """The run in a folder; one that holds nothing but study.toml is begun.

    Raises:
        RunFailed: There is neither a run nor a study.
        StudyError, PlanError: The study is wrong or its plan cannot be met.
        IntegrityError: The study was changed after the run had begun.
    """
    file = folder / "study.toml"
    if RunStore.begun(folder) or not file.exists():
        return RunStore.open(folder)
    study = Study.load(file)
    return begin(folder, study, run_id=new_run_id(study))


def holdout(settings: ServerFile, study: Study) -> Examples | None:
    """The public rows of the study's dataset, if the server holds them and needs them.

    Raises:
        DataError: They do not fit the study's columns.
    """
    from guilder_shared import tables

    held = settings.holdout.get(study.data.dataset)
    if held is None or study.evaluation.on != "public-holdout":
        return None
    contract = study.public_contract
    table = tables.read(held.kind, held.path, held.map, tables.needed(contract))
    tables.check(table, contract)
    tables.check_cells(table, contract)  # these rows are public
    return features.prepare(tables.encode(table, contract), study)


def check_names(settings: ServerFile, study: Study, only: Sequence[str]) -> None:
    """Refuse names that no site of the roster has, before anybody waits for them.

    Raises:
        StudyError: GLD-C090 an unknown name; GLD-C092 fewer names than the study's
            `min_sites`.
    """
    folder = settings.sites.folder
    known = {path.stem for path in folder.glob("*.pem")} if only else set()
    unknown = sorted(set(only) - known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        raise StudyError(
            "GLD-C090",
            f"no site is called {shown(unknown[0])}",
            fix=f"Did you mean {near[0]}?" if near else f"See {folder}.",
        )
    if only and len(set(only)) < study.aggregation.min_sites:
        raise StudyError(
            "GLD-C092",
            f"{len(set(only))} sites are named; the study needs "
            f"{study.aggregation.min_sites}",
            fix="Name more sites, or lower aggregation.min_sites.",
        )
