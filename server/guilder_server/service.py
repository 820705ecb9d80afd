"""The resident server: hub, control channel and the queue of runs, in one process.

Runs go one at a time (Flower's task identity is one per process), in the order they
were submitted. After any stop the queue is rebuilt from the run folders alone. It
decides nothing about a study; the privacy plan is solved here once, at submit.
"""

import json
import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from guilder_server import rounds, submission
from guilder_server.runstore import RunStore
from guilder_server.settings import ServerFile
from guilder_shared.errors import GuilderError, RunFailed
from guilder_shared.study import Study

log = logging.getLogger(__name__)
OPEN_STATES: Final = ("queued", "running")
FINAL_STATES: Final = ("finished", "failed", "stopped")
WATCH_POLL_S: Final = 0.05


class Service:
    """What `guilder server start` runs; the handler behind the control channel.

    Args:
        settings: server.toml.
        open_grid: Gives the Flower Grid for a run id; the hub's, in a deployment.
    """

    def __init__(self, settings: ServerFile, open_grid: Any) -> None:
        self._settings = settings
        self._open_grid = open_grid
        self._runs = settings.server.storage / "runs"
        self._runs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._stops: dict[str, threading.Event] = {}
        self._worker = threading.Thread(target=self._work, daemon=True, name="runs")

    def start(self) -> None:
        """Queue what was queued or running when the server last stopped, and go on."""
        for summary in reversed(self.list()):
            if summary["state"] in OPEN_STATES:
                log.info("going on with run %s", summary["run_id"])
                self._enqueue(summary["run_id"])
        self._worker.start()

    def stop(self) -> None:
        """Take no further run; the open one is left to be resumed."""
        self._queue.put(None)

    def submit(self, study: bytes, only: Sequence[str]) -> str:
        """Check a study, solve its plan, store it durably and queue it.

        Args:
            study: Canonical JSON.
            only: Names of the sites to take part; empty for all.

        Raises:
            StudyError, PlanError: The study is wrong or its plan cannot be met.
        """
        parsed = Study.from_canonical(study)
        submission.holdout(self._settings, parsed)
        run_id = submission.new_run_id(parsed)
        submission.begin(self._runs / run_id, parsed, run_id=run_id, only=only).close()
        self._enqueue(run_id)
        return run_id

    def list(self) -> list[dict[str, Any]]:
        """All runs, newest first: run_id, state, round, rounds, error."""
        folders = [path.parent for path in self._runs.glob("*/run.json")]
        summaries = [self._summary(folder) for folder in folders]
        return sorted(summaries, key=lambda s: float(s["submitted"]), reverse=True)

    def watch(
        self, run_id: str, *, gone: threading.Event | None = None
    ) -> Iterator[dict[str, Any]]:
        """Events from the first on, as they happen.

        Ends when the run has ended, or soon after nobody listens any more (`gone`).
        """
        store = RunStore.open(self._folder(run_id))
        seen = 0
        try:
            while gone is None or not gone.is_set():
                ended = store.fact("state") in FINAL_STATES
                for event in store.events(after=seen):
                    seen += 1
                    yield event
                if ended:
                    return
                time.sleep(WATCH_POLL_S)
        finally:
            store.close()

    def resume(self, run_id: str) -> None:
        """Queue a failed or stopped run again; it goes on with its open round.

        Raises:
            RunFailed: It is not there, is finished, or is going on already.
        """
        store = RunStore.open(self._folder(run_id))
        state = store.fact("state")
        try:
            if state == "finished" or state in OPEN_STATES:
                raise RunFailed("GLD-R011", f"run {run_id} is {state}; nothing to do")
            store.enter("queued")
        finally:
            store.close()
        self._enqueue(run_id)

    def stop_run(self, run_id: str) -> None:
        """Stop a run at once; it can be resumed.

        Raises:
            RunFailed: There is no such run, or it has ended.
        """
        if self._summary(self._folder(run_id))["state"] not in OPEN_STATES:
            raise RunFailed("GLD-R011", f"run {run_id} has ended; nothing to stop")
        self._stops.setdefault(run_id, threading.Event()).set()

    def _enqueue(self, run_id: str) -> None:
        self._stops[run_id] = threading.Event()
        self._queue.put(run_id)

    def _work(self) -> None:
        while (run_id := self._queue.get()) is not None:
            try:
                self._carry_through(run_id)
            except GuilderError as error:
                log.warning("run %s ended: %s", run_id, error)
            except Exception:
                log.exception("run %s failed", run_id)
                self._record_crash(run_id)

    def _carry_through(self, run_id: str) -> None:
        from guilder_server.app import on_holdout, run_on

        store = RunStore.open(self._folder(run_id))
        try:
            task = rounds.Run(
                store.study,
                store.plan,
                store,
                on_holdout(
                    store.study, submission.holdout(self._settings, store.study)
                ),
                frozenset(store.fact("only") or ()),
                self._stops[run_id],
            )
            with self._open_grid(run_id) as grid:
                run_on(grid, task)
        finally:
            store.close()

    def _record_crash(self, run_id: str) -> None:
        store = RunStore.open(self._folder(run_id))
        store.enter(
            "failed", RunFailed("GLD-R012", "the server met a bug; see its log")
        )
        store.close()

    def _folder(self, run_id: str) -> Path:
        folder = self._runs / run_id
        if "/" in run_id or not (folder / "run.db").exists():
            raise RunFailed(
                "GLD-R010", f"there is no run {run_id!r}", fix="guilder run list"
            )
        return folder

    def _summary(self, folder: Path) -> dict[str, Any]:
        facts = json.loads((folder / "run.json").read_text("utf-8"))
        store = RunStore.open(folder)
        last, rounds_ = store.last_round(), store.study.training.rounds
        store.close()
        return {
            "run_id": facts["run_id"],
            "state": facts["state"],
            "round": last,
            "rounds": rounds_,
            "submitted": facts["submitted"],
            "error": facts["error"],
        }
