"""A run's folder after kills, damage and a disk that refuses."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guilder_server.runstore import RunStore
from guilder_shared.errors import GuilderError, IntegrityError
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.study import Study
from guilder_simulations.studies import path_of

STUDY = Study.load(path_of("breast-cancer"))
FACTS = {"run_id": "r-1", "plan": Plan(1.0, 5, 1e-3).facts()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    RunStore.create(tmp_path / "run", STUDY, FACTS).close()
    return tmp_path / "run"


@pytest.mark.parametrize("point", range(1, 8))
def test_killed_while_it_is_made_a_run_is_there_whole_or_not_at_all(
    tmp_path: Path, point: int
) -> None:
    child = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from guilder_server.runstore import RunStore
from test_runstore import FACTS, STUDY
left = {point}
real = RunStore._set
def dying(self, key, value):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, key, value)
RunStore._set = dying
RunStore.create(Path(sys.argv[1]), STUDY, FACTS)
"""

    ended = subprocess.run(
        [sys.executable, "-c", child, str(tmp_path / "run")], check=False, timeout=60
    )

    if ended.returncode == -signal.SIGKILL:
        assert not RunStore.begun(tmp_path / "run")
    again = RunStore.create(tmp_path / "run", STUDY, FACTS)
    assert (again.fact("state"), again.run_id) == ("queued", "r-1")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"not a database at all" * 50 + data[1050:],
        lambda data: data[:5000],
    ],
    ids=["overwritten", "cut"],
)
def test_a_damaged_database_is_told_and_never_guessed(
    folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = folder / "run.db"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(IntegrityError) as caught:
        RunStore.open(folder)

    assert caught.value.error_id == "GLD-I051"


@pytest.mark.parametrize(
    ("old", "new", "error_id"),
    [
        ("clip_norm = 0.5", "clip_norm = 5.0", "GLD-I050"),
        ("schema = 1", "schema = [", "GLD-C003"),
        ("schema = 1", "\x00\x1b", "GLD-C003"),
    ],
)
def test_a_changed_study_is_not_gone_on_with(
    folder: Path, old: str, new: str, error_id: str
) -> None:
    path = folder / "study.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))

    with pytest.raises(GuilderError) as caught:
        RunStore.open(folder)

    assert caught.value.error_id == error_id


def test_the_files_for_people_are_written_anew_from_the_database(
    folder: Path,
) -> None:
    store = RunStore.open(folder)
    store.commit(1, registry.initial(STUDY), {}, {"auc": 0.5})
    expected = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(expected[:7] + b"\xff\x00")
    (folder / "events.jsonl").unlink()

    store.enter("running")

    assert (folder / "metrics.jsonl").read_bytes() == expected
    kinds = [event["kind"] for event in store.events()]
    assert kinds == ["run-queued", "round", "run-running"]
    assert (folder / "events.jsonl").read_text().count("\n") == len(kinds)


def test_opening_a_run_does_not_build_its_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(_study: Study) -> None:
        raise AssertionError("64 million weights for a look at a run's state")

    monkeypatch.setattr(registry, "initial", built)

    assert RunStore.open(folder).shapes() == registry.shapes(STUDY)
