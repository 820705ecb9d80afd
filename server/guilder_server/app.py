"""The Flower ServerApp: a run in, its rounds carried through.

`make_app` lets each Grid say where a run is kept; `app` is the one that stock Flower
loads: it finds the run's folder in the run's configuration.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from guilder_server import rounds, submission
from guilder_server.consents import WAITS
from guilder_server.grid import Sites
from guilder_server.settings import ServerFile
from guilder_shared.errors import GuilderError, NetworkError, StudyError
from guilder_shared.messages import Weights
from guilder_shared.study import Study
from guilder_shared.tasks import Examples

RUN_FOLDER: Final = "run-folder"  # keys in a Flower run's configuration
SERVER_FILE: Final = "server-file"


def make_app(find: Callable[[Context], rounds.Run]) -> ServerApp:
    """A ServerApp that carries through the run that `find` names."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        task = find(context)
        carry_through(task, Sites(grid, task.stopped))

    return app


def run_on(grid: Grid, task: rounds.Run) -> None:
    """Run the ServerApp for `task` on a Grid of ours, as Flower would."""
    app = make_app(lambda _context: task)
    app(grid, Context(0, 0, {}, RecordDict(), {}))


def carry_through(task: rounds.Run, sites: Sites) -> None:
    """Run all rounds and record how it ended; a crash leaves the run to be resumed.

    A run that waits for people goes on waiting, under the same state.

    Raises:
        GivesWay: It waits, and another run wants its place.
        GuilderError: As `rounds.run`; the run is then recorded as failed or stopped.
    """
    if task.store.fact("state") != WAITS:
        task.store.enter("running")
    try:
        rounds.run(task, sites)
    except GuilderError as error:
        task.store.enter("stopped" if task.stopped.is_set() else "failed", error)
        raise
    task.store.enter("finished")


def on_holdout(study: Study, holdout: Examples | None) -> rounds.Evaluate:
    """How the global model is measured: on public rows the server holds, or not.

    Raises:
        StudyError: The study asks for a public hold-out and the server has none.
    """
    if study.evaluation.on != "public-holdout":  # or the sites measure
        return lambda _weights: {}
    if holdout is None or not len(holdout.targets):
        raise StudyError(
            "GLD-C081",
            f"the study is evaluated on a public hold-out of {study.data.dataset!r}, "
            "and this server has no rows of it",
            fix=f"add [holdout.{study.data.dataset}] to server.toml, "
            'or set evaluation.on = "none"',
        )
    return partial(_evaluate, study, holdout)


def _evaluate(study: Study, holdout: Examples, weights: Weights) -> dict[str, float]:
    from guilder_shared.training.evaluate import evaluate

    return evaluate(weights, study, holdout)


def _find(context: Context) -> rounds.Run:
    """The run that a Flower run's configuration names; begun, if it is not yet."""
    folder = str(context.run_config.get(RUN_FOLDER, ""))
    if not folder:
        raise NetworkError(
            "GLD-N070",
            f"the Flower run's configuration has no {RUN_FOLDER!r}",
            fix=f"flwr run deploy/flower -c '{RUN_FOLDER}=\"/…\"'",
        )
    store = submission.open_or_begin(Path(folder))
    file = str(context.run_config.get(SERVER_FILE, ""))
    rows = (
        submission.holdout(ServerFile.load(Path(file)), store.study) if file else None
    )
    evaluate = on_holdout(store.study, rows)
    only = frozenset(store.fact("only") or ())
    return rounds.Run(store.study, store.plan, store, evaluate, only)


app = make_app(_find)
