"""The resident server: hub, control channel and the queue of runs, in one process.

Runs go one at a time (Flower's task identity is one per process), in the order they
were submitted; one that waits for people gives its place up while another wants it.
After any stop the queue is rebuilt from the run folders alone. It decides nothing about
a study; the privacy plan is solved here once, at submit.
"""

import logging
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from guilder_server import rounds, submission
from guilder_server.consents import GivesWay
from guilder_server.glance import DAMAGED, FINAL_STATES, OPEN_STATES, glance
from guilder_server.grid import stopped_by_operator
from guilder_server.heads import Heads
from guilder_server.places import Places
from guilder_server.runstore import RunStore
from guilder_server.settings import ServerFile
from guilder_shared import recipes
from guilder_shared.errors import GuilderError, RunFailed
from guilder_shared.settings.mistakes import shown
from guilder_shared.study import Study

log = logging.getLogger(__name__)
WATCH_POLL_S: Final = 0.05
STOPPING_S: Final = 10.0  # a run that is stopping ends within this
MOST_SUBMITS: Final = 4  # threads of the control channel that may check a study
MOST_QUEUED: Final = 100
RUN_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")


class Service:
    """What `guilder server start` runs; the handler behind the control channel.

    Args:
        settings: server.toml.
        open_grid: Gives the Flower Grid for a run id; the hub's, in a deployment.
    """

    def __init__(self, settings: ServerFile, open_grid: Any) -> None:
        self._settings = settings
        self._open_grid = open_grid
        _admit_recipes(settings)
        self._runs = settings.server.storage / "runs"
        self._runs.mkdir(parents=True, exist_ok=True, mode=0o700)
        has_runs = any(self._runs.glob("*/run.db"))
        self.heads = Heads.open(settings.server.storage, has_runs=has_runs)
        self._lock = threading.Lock()  # guards the states of runs that wait
        self._solving = threading.Lock()
        self._submits = threading.Semaphore(MOST_SUBMITS)
        self._current: str | None = None
        self._places = Places()
        self._stops: dict[str, threading.Event] = {}
        self._worker = threading.Thread(target=self._work, daemon=True, name="runs")

    def start(self) -> None:
        """Queue what was queued or running when the server last stopped, and go on."""
        for summary in reversed(self.list()):
            if summary["state"] in OPEN_STATES:
                log.info("going on with run %s", summary["run_id"])
                self._enqueue(summary["run_id"])
            elif summary["state"] == DAMAGED:
                log.warning("left alone: %s", summary["error"]["what"])
        self._worker.start()

    def stop(self) -> None:
        """Take no further run; the open one is left to be resumed."""
        self._places.close()

    def submit(self, study: bytes, only: Sequence[str]) -> str:
        """Check a study, solve its plan, store it durably and queue it.

        Args:
            study: Canonical JSON.
            only: Names of the sites to take part; empty for all.

        Raises:
            StudyError, PlanError, DataError: The study is wrong, its plan cannot be
                met, or the public rows it is measured on do not fit.
            RunFailed: GLD-R032 too many studies are being checked, or wait.
        """
        from guilder_server.app import on_holdout

        if not self._submits.acquire(blocking=False):
            raise _too_many(f"{MOST_SUBMITS} studies are being checked")
        try:
            if len(self._places) >= MOST_QUEUED:
                raise _too_many(f"{MOST_QUEUED} runs are queued")
            parsed = Study.from_canonical(study)
            submission.check_names(self._settings, parsed, only)
            on_holdout(parsed, submission.holdout(self._settings, parsed))
            run_id = submission.new_run_id(parsed)
            folder = self._runs / run_id
            with self._solving:  # one at a time: the rounds need the processor too
                submission.begin(folder, parsed, run_id=run_id, only=only).close()
        except (OSError, sqlite3.OperationalError) as error:
            raise not_written(error) from None
        finally:
            self._submits.release()
        self._enqueue(run_id)
        return run_id

    def list(self) -> list[dict[str, Any]]:
        """All runs, newest first; see `glance` for what is told of each."""
        summaries = [glance(path.parent) for path in self._runs.glob("*/run.db")]
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

    def waits(self, run_id: str) -> dict[str, str]:
        """Whose people a run waits for, and why; empty for one that waits for none."""
        if not RUN_ID.fullmatch(run_id):
            return {}
        found: dict[str, str] = glance(self._runs / run_id)["waits"]
        return found

    def resume(self, run_id: str) -> None:
        """Queue a failed or stopped run again; it goes on with its open round.

        A run that is stopping is waited for, a few seconds.

        Raises:
            RunFailed: It is not there, is finished, or is going on already.
        """
        folder = self._folder(run_id)
        deadline = time.monotonic() + STOPPING_S
        while self._is_stopping(run_id) and time.monotonic() < deadline:
            time.sleep(WATCH_POLL_S)
        with self._lock:
            store = RunStore.open(folder)
            state = store.fact("state")
            try:
                if state == "finished" or state in OPEN_STATES:
                    raise RunFailed(
                        "GLD-R011", f"run {run_id} is {state}; nothing to do"
                    )
                store.enter("queued")
            finally:
                store.close()
            self._enqueue(run_id)

    def stop_run(self, run_id: str) -> None:
        """Stop a run at once; it can be resumed.

        Raises:
            RunFailed: There is no such run, or it has ended.
        """
        folder = self._folder(run_id)
        with self._lock:
            if glance(folder)["state"] not in OPEN_STATES:
                raise RunFailed("GLD-R011", f"run {run_id} has ended; nothing to stop")
            self._stops.setdefault(run_id, threading.Event()).set()
            if run_id != self._current:  # else its rounds end it themselves
                self._record(run_id, "stopped", stopped_by_operator())

    def _is_stopping(self, run_id: str) -> bool:
        return run_id == self._current and self._stops[run_id].is_set()

    def _enqueue(self, run_id: str) -> None:
        self._stops[run_id] = threading.Event()
        self._places.put(run_id)

    def _work(self) -> None:
        while (run_id := self._places.take()) is not None:
            if not self._take(run_id):
                continue
            try:
                self._carry_through(run_id)
            except GivesWay as later:
                self._give_way(run_id, later.rest_s)
            except GuilderError as error:
                log.warning("run %s ended: %s", run_id, error)
                self._record(run_id, "failed", error)
            except (OSError, sqlite3.OperationalError) as error:
                log.exception("run %s failed", run_id)
                self._record(run_id, "failed", not_written(error))
            except Exception:
                log.exception("run %s failed", run_id)
                bug = RunFailed("GLD-R012", "the server met a bug; see its log")
                self._record(run_id, "failed", bug)
            finally:
                self._current = None

    def _take(self, run_id: str) -> bool:
        """Whether the run still waits: it may have been stopped, or be here twice."""
        with self._lock:
            waits = glance(self._runs / run_id)["state"] in OPEN_STATES
            self._current = run_id if waits else None
            return waits

    def _give_way(self, run_id: str, rest_s: float) -> None:
        """Let the next run go on; this one is asked for again, unless it is stopped."""
        with self._lock:
            self._current = None
            if self._stops[run_id].is_set():
                self._record(run_id, "stopped", stopped_by_operator())
            else:
                self._places.put(run_id, rest_s)

    def _record(self, run_id: str, state: str, error: GuilderError) -> None:
        """Write how a run ended, if nobody has; the next goes on whatever fails."""
        try:
            store = RunStore.open(self._folder(run_id))
            try:
                if store.fact("state") in OPEN_STATES:
                    store.enter(state, error)
            finally:
                store.close()
        except Exception:
            log.exception("the end of run %s cannot be written", run_id)

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
                self.heads,
                self._settings.server.consent_s,
                self._places.is_wanted,
            )
            with self._open_grid(run_id) as grid:
                run_on(grid, task)
        finally:
            store.close()

    def _folder(self, run_id: str) -> Path:
        folder = self._runs / run_id if RUN_ID.fullmatch(run_id) else None
        if folder is None or not RunStore.begun(folder):
            raise RunFailed(
                "GLD-R010",
                f"there is no run {shown(run_id)}",
                fix="guilder run list",
            )
        return folder


def _admit_recipes(settings: ServerFile) -> None:
    """Load the recipes of others that server.toml allows; one that is wrong is told."""
    for name in settings.recipe:
        try:
            recipes.admit(settings.recipe, name, who="the server")
        except GuilderError as error:
            log.error("recipe %s is left out: %s", name, error)


def not_written(error: Exception) -> RunFailed:
    """What a disk that refuses makes of a run (GLD-R031)."""
    reason = getattr(error, "strerror", None) or type(error).__name__
    return RunFailed(
        "GLD-R031",
        f"the run's folder cannot be written: {reason}",
        fix="Make room on the server's disk, then `guilder run resume`.",
    )


def _too_many(what: str) -> RunFailed:
    return RunFailed(
        "GLD-R032",
        f"{what}, and no more are taken",
        fix="See `guilder run list`, wait or stop some, and submit again.",
    )
