"""A whole study on one machine, with the rounds and turns of a deployment.

In a notebook: `from guilder_simulations import simulate`; the same study and seed give
the same bytes as the command `guilder simulate`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from guilder_shared.study import Study
    from guilder_simulations.engine import Run


def simulate(
    study: "Study",
    out: Path | None = None,
    *,
    watch: "Callable[[dict[str, Any]], None] | None" = None,
) -> "Run":
    """Run `study` in this process.

    Args:
        study: With a `[simulation]` part.
        out: Run folder; an unfinished run in it goes on. None makes a new one under
            `runs/`.
        watch: Called with every event of the run.

    Raises:
        StudyError, PlanError, DataError, RunFailed: See `engine.simulate`.
    """
    from guilder_simulations import engine

    return engine.simulate(study, out or engine.new_folder(study), watch=watch)
