"""A study becomes a run folder, once; then the folder is the run."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from flwr.app import Context, RecordDict

from guilder_server import app, submission
from guilder_server.runstore import RunStore
from guilder_shared.errors import IntegrityError, NetworkError, RunFailed, StudyError
from guilder_shared.study import Study
from guilder_simulations.studies import path_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder as a person makes it: study.toml and nothing else."""
    write(tmp_path, "training.rounds=2")
    return tmp_path


def write(folder: Path, *settings: str) -> Study:
    study = Study.load(path_of("breast-cancer"), settings)
    parts = study.model_dump(mode="json", by_alias=True, exclude_none=True)
    (folder / "study.toml").write_text(tomli_w.dumps(parts))
    return study


def context(**run_config: Any) -> Context:
    return Context(1, 1, {}, RecordDict(), run_config)


def test_a_folder_with_a_study_is_begun_and_the_second_time_gone_on_with(
    folder: Path,
) -> None:
    first = submission.open_or_begin(folder)
    run_id, plan = first.run_id, first.plan
    first.close()

    second = submission.open_or_begin(folder)

    assert second.plan == plan
    assert second.run_id == run_id
    assert plan.noise_multiplier is not None
    second.close()


def test_a_study_changed_after_the_beginning_is_refused(folder: Path) -> None:
    submission.open_or_begin(folder).close()
    write(folder, "training.rounds=3")

    with pytest.raises(IntegrityError, match=r"not the study that was begun"):
        submission.open_or_begin(folder)


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as caught:
        submission.open_or_begin(tmp_path)

    assert caught.value.error_id == "GLD-R010"


def test_a_flower_run_without_a_folder_is_told_what_to_name() -> None:
    with pytest.raises(NetworkError) as caught:
        app._find(context(**{"run-folder": ""}))

    assert caught.value.error_id == "GLD-N070"
    assert "run-folder" in caught.value.fix


def test_a_flower_run_that_needs_a_holdout_says_where_it_is_named(folder: Path) -> None:
    with pytest.raises(StudyError) as caught:
        app._find(context(**{"run-folder": str(folder)}))

    assert caught.value.error_id == "GLD-C081"


def test_no_two_runs_of_a_study_have_one_name(folder: Path) -> None:
    store: RunStore = submission.open_or_begin(folder)

    assert submission.new_run_id(store.study) != store.run_id
    store.close()
