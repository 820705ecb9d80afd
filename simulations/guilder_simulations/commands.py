"""`guilder simulate`: a study on this machine, in the foreground, resumable."""

from pathlib import Path
from typing import Annotated, Any

import typer


def simulate(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a key: --set training.rounds=10."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Run folder; an unfinished run in it goes on."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object as the last line.")
    ] = False,
) -> None:
    """Run STUDY on this machine with the rounds and turns of a deployment.

    Ctrl-C or a crash loses at most the open round: the same command with the same
    --out goes on. Exit codes: 0 done, 1 the run failed, 2 a file or option is wrong.
    """
    from guilder_shared.study import Study
    from guilder_simulations import engine
    from guilder_simulations.progress import Progress

    loaded = Study.load(study, tuple(overrides or ()))
    folder = out or engine.new_folder(loaded)
    with Progress(loaded.training.rounds, folder) as progress:
        try:
            run = engine.simulate(loaded, folder, watch=progress.show)
        except KeyboardInterrupt:
            progress.interrupted(study)
            raise
    if as_json:
        typer.echo(run.to_json())
        return
    typer.echo(_summary(run))


def _summary(run: Any) -> str:
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in run.metrics.items())
    spent = {e for e in run.epsilon.values() if e is not None}
    cost = f"epsilon {max(spent):.3f} per site" if spent else "no privacy"
    return (
        f"{metrics or 'not evaluated'}   {cost} (simulated: no guarantee)   "
        f"{run.rounds} rounds in {run.seconds:.1f} s\n{run.run_dir}"
    )
