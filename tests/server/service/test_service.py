"""The queue of runs, driven as the control channel does; some operators err or lie."""

import shutil
import threading
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

from guilder_server import service as service_room
from guilder_server import submission
from guilder_server.runstore import RunStore
from guilder_server.service import MOST_SUBMITS, Service
from guilder_server.settings import ServerFile
from guilder_shared import certificates
from guilder_shared.errors import GuilderError, RunFailed
from guilder_simulations import synthetic

Eventually = Callable[..., Any]
Queue = Any  # the fixture `place`; see conftest.py


@pytest.mark.parametrize(
    ("overrides", "only", "error_id"),
    [
        (("evaluation.on=public-holdout",), [], "GLD-C081"),
        (("study.recipe=mind-reading",), [], "GLD-C060"),
        (("model.name=oracle",), [], "GLD-C06"),
        (("training.local_steps=100000",), [], "GLD-C091"),
        ((), ["alder", "brich"], "GLD-C090"),
        pytest.param(
            (),
            ["../../etc/passwd", "alder"],
            "GLD-C090",
            marks=pytest.mark.attack(
                "an operator", "path tricks in the list of sites", "GLD-C090"
            ),
        ),
        ((), ["\x1b[2J" * 100_000, "alder"], "GLD-C090"),
        ((), ["alder"], "GLD-C092"),
        ((), ["alder", "alder"], "GLD-C092"),
    ],
)
def test_a_study_that_can_never_run_is_refused_when_it_is_submitted(
    place: Queue, overrides: tuple[str, ...], only: list[str], error_id: str
) -> None:
    with pytest.raises(GuilderError) as caught:
        place.service.submit(
            place.study(
                "privacy.mechanism=site-noise", "training.rounds=100", *overrides
            ),
            only,
        )

    assert caught.value.error_id.startswith(error_id)
    assert len(str(caught.value)) < 500
    assert "\x1b" not in str(caught.value)
    assert list(place.runs.iterdir()) == []


@pytest.mark.parametrize(
    "run_id",
    ["", ".", "..", "../runs", "a/../b", "/etc", "r\0", "r" * 5000, "R\x1b[2J", "-r"],
)
@pytest.mark.attack("an operator", "path tricks in a run's id", "GLD-R010")
def test_a_run_id_is_never_a_path(place: Queue, run_id: str) -> None:
    for call in (place.service.resume, place.service.stop_run, place.service.watch):
        with pytest.raises(RunFailed) as caught:
            list(call(run_id) or ())

        assert caught.value.error_id == "GLD-R010"
        assert str(caught.value).replace("\n", "").isprintable()
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["run.db", "study.toml", "run.json"])
def test_a_damaged_run_neither_hides_the_others_nor_stops_the_server(
    place: Queue, name: str, eventually: Eventually
) -> None:
    place.go.set()
    damaged = place.service.submit(place.study(), [])
    whole = place.service.submit(place.study(), [])
    (place.runs / damaged / name).write_bytes(b"\x00 not what it was" * 400)

    place.service.start()

    eventually(lambda: place.state(whole) == "finished")
    expected = {"run.db": "damaged", "study.toml": "queued", "run.json": "finished"}
    eventually(lambda: place.state(damaged) == expected[name])


def test_an_empty_folder_among_the_runs_is_no_run(place: Queue) -> None:
    (place.runs / "half-made").mkdir()

    assert place.service.list() == []


def test_no_more_runs_wait_than_the_queue_holds(
    place: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_room, "MOST_QUEUED", 3)
    for _ in range(3):
        place.service.submit(place.study(), [])

    with pytest.raises(RunFailed) as caught:
        place.service.submit(place.study(), [])

    assert caught.value.error_id == "GLD-R032"
    assert len(place.service.list()) == 3


def test_studies_that_take_long_to_check_leave_threads_for_other_calls(
    place: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    end, inside = threading.Event(), []
    real = submission.holdout

    def slow(*arguments: Any) -> Any:
        inside.append(1)
        end.wait(30)
        return real(*arguments)

    monkeypatch.setattr(submission, "holdout", slow)
    callers = [
        threading.Thread(target=place.service.submit, args=(place.study(), []))
        for _ in range(MOST_SUBMITS)
    ]
    for caller in callers:
        caller.start()
    eventually(lambda: len(inside) == MOST_SUBMITS)

    with pytest.raises(RunFailed) as caught:
        place.service.submit(place.study(), [])
    end.set()
    for caller in callers:
        caller.join()

    assert caught.value.error_id == "GLD-R032"
    assert len(place.service.list()) == MOST_SUBMITS


def test_a_run_that_cannot_begin_ends_as_failed_with_its_reason(
    place: Queue, eventually: Eventually
) -> None:
    rows = place.folder / "server" / "rows.parquet"
    pq.write_table(synthetic.generate("breast-cancer", 7), rows)
    path = place.folder / "server" / "server.toml"
    held = '[holdout.biopsies]\nkind = "parquet"\npath = "rows.parquet"\n'
    path.write_text(f"{path.read_text()}\n{held}")
    place.service = Service(ServerFile.load(path), place.open_grid)
    run_id = place.service.submit(place.study("evaluation.on=public-holdout"), [])
    rows.unlink()

    place.service.start()

    eventually(lambda: place.state(run_id) == "failed")
    (found,) = place.service.list()
    assert found["error"]["id"].startswith("GLD-D")


def test_a_disk_that_refuses_ends_one_run_and_the_next_goes_on(
    place: Queue, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    real = RunStore.commit
    place.go.set()
    first = place.service.submit(place.study(), [])
    second = place.service.submit(place.study(), [])

    def commit(self: RunStore, *arguments: Any, **named: Any) -> None:
        if self.run_id == first:
            raise OSError(28, "No space left on device")
        real(self, *arguments, **named)

    monkeypatch.setattr(RunStore, "commit", commit)
    place.service.start()

    eventually(lambda: place.state(second) == "finished")
    (found,) = [s for s in place.service.list() if s["run_id"] == first]
    assert (found["state"], found["error"]["id"]) == ("failed", "GLD-R031")
    assert "No space left" in found["error"]["what"]


def test_a_run_whose_folder_is_gone_does_not_end_the_queue(
    place: Queue, eventually: Eventually
) -> None:
    place.go.set()
    gone = place.service.submit(place.study(), [])
    whole = place.service.submit(place.study(), [])
    shutil.rmtree(place.runs / gone)

    place.service.start()

    eventually(lambda: place.state(whole) == "finished")


def test_a_run_that_waits_behind_another_is_stopped_at_once_and_resumed(
    place: Queue, eventually: Eventually
) -> None:
    place.service.start()
    first = place.service.submit(place.study(), [])
    waiting = place.service.submit(place.study(), [])
    eventually(lambda: place.state(first) == "running")

    place.service.stop_run(waiting)
    stopped = place.state(waiting)
    place.service.resume(waiting)
    place.service.stop_run(first)
    place.go.set()

    assert stopped == "stopped"
    eventually(lambda: place.state(waiting) == "finished")
    assert place.state(first) == "stopped"


def test_a_run_stopped_in_a_round_can_be_resumed_in_the_next_breath(
    place: Queue, eventually: Eventually
) -> None:
    place.service.start()
    run_id = place.service.submit(place.study(), [])
    eventually(lambda: place.state(run_id) == "running")

    place.service.stop_run(run_id)
    place.service.resume(run_id)
    place.go.set()

    eventually(lambda: place.state(run_id) == "finished")
    kinds = [event["kind"] for event in place.service.watch(run_id)]
    states = [kind for kind in kinds if kind.startswith("run-")]
    assert states[:4] == ["run-queued", "run-running", "run-stopped", "run-queued"]


def test_a_site_cannot_be_in_the_roster_twice(place: Queue) -> None:
    folder = place.settings.sites.folder
    shutil.copy(folder / "alder.pem", folder / "alder2.pem")

    with pytest.raises(GuilderError) as caught:
        certificates.roster(folder)

    assert caught.value.error_id == "GLD-E007"
