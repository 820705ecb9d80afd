"""The average over rounds at the server: published, measured, and kept over kills."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guilder_server.runstore import RunStore
from guilder_shared import durable
from guilder_shared.errors import IntegrityError
from guilder_shared.messages import Weights, unpack
from guilder_shared.models import registry
from guilder_shared.study import Study
from guilder_simulations.engine import Run, simulate
from guilder_simulations.studies import path_of

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
ROUNDS, DECAY = 4, 0.7
SHORT = (f"training.rounds={ROUNDS}", "privacy.mechanism=none", "training.test_seed=3")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    study = Study.load(path_of("breast-cancer"), SHORT)
    return simulate(study, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.load(path_of("breast-cancer"), (*SHORT, f"training.average={DECAY}"))


@pytest.fixture(scope="module")
def averaged(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(study, tmp_path_factory.mktemp("averaged"))


def moves(run: Run, name: str) -> list[np.ndarray]:
    """How far each round's file is from where the run began."""
    store = RunStore.open(run.run_dir)
    start, shapes = registry.initial(store.study), registry.shapes(store.study)
    store.close()
    found = []
    for round_no in range(1, ROUNDS + 1):
        path = run.run_dir / "rounds" / f"{round_no:03d}" / name
        model = unpack(path.read_bytes(), shapes)
        found.append(np.concatenate([(model[n] - start[n]).ravel() for n in start]))
    return found


def test_what_is_published_is_the_average_of_what_was_trained(
    plain: Run, averaged: Run
) -> None:
    trained = moves(plain, "model.safetensors")

    published = moves(averaged, "model.safetensors")

    for round_no, found in enumerate(published, 1):
        shares = DECAY ** np.arange(round_no - 1, -1, -1.0)
        expected = np.average(trained[:round_no], axis=0, weights=shares)
        # the two studies have other digests, and so begin a little apart
        assert found == pytest.approx(expected, abs=0.03)
    assert not np.allclose(published[-1], trained[-1], atol=0.1)


def test_training_goes_on_from_the_model_and_not_from_its_average(
    averaged: Run, study: Study
) -> None:
    store = RunStore.open(averaged.run_dir)

    model, iterate = store.model(), store.iterate()
    store.close()

    assert all(np.array_equal(averaged.model[n], model[n]) for n in model)
    assert not any(np.allclose(iterate[n], model[n]) for n in model)
    left = sorted(averaged.run_dir.glob("rounds/*/iterate.safetensors"))
    assert [path.parent.name for path in left] == [f"{ROUNDS:03d}"]


@pytest.mark.parametrize("file", ["model.safetensors", "iterate.safetensors"])
def test_killed_at_either_file_the_run_ends_with_the_same_bytes(
    study: Study, averaged: Run, tmp_path: Path, file: str
) -> None:
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            real, calls = durable.write, 0

            def dying(path: Path, *args: Any, **named: Any) -> None:
                nonlocal calls
                real(path, *args, **named)
                calls += path.name == file
                if calls == 2:
                    os.kill(os.getpid(), signal.SIGKILL)

            durable.write = dying
            simulate(study, tmp_path)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status

    resumed = simulate(study, tmp_path)

    assert bytes_of(resumed.model) == bytes_of(averaged.model)
    assert resumed.metrics == averaged.metrics


def bytes_of(model: Weights) -> bytes:
    return b"".join(model[name].tobytes() for name in sorted(model))


def test_an_iterate_that_was_changed_is_refused(averaged: Run) -> None:
    path = averaged.run_dir / "rounds" / f"{ROUNDS:03d}" / "iterate.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\0\0\0\0")
    store = RunStore.open(averaged.run_dir)

    try:
        with pytest.raises(IntegrityError) as caught:
            store.iterate()
    finally:
        store.close()
        path.write_bytes(whole)

    assert caught.value.error_id == "GLD-I049"
