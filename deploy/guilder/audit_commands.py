"""`guilder privacy audit`: attack a study's training code before anybody relies on it.

Nothing heavy is imported before the command runs.
"""

from pathlib import Path
from typing import Annotated

import typer


def audit(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout.")
    ] = False,
    canaries: Annotated[
        int, typer.Option("--canaries", help="Units put in or left out by coins.")
    ] = 1_000,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Repeat an audit; a fresh one if left out.", min=0),
    ] = None,
) -> None:
    """Attack STUDY's private training and show the least epsilon it can have.

    Canaries in or out by coins are trained by the code that sites run; right guesses
    give a lower bound, beside the claimed epsilon. If the study's source is made up or
    published, it is also simulated, and its model attacked by the loss of rows. No file
    of a site is opened. A small lower bound proves nothing.

    Exit code 0: the claim is not contradicted. 2: it is, or STUDY cannot be audited.
    """
    import secrets

    from guilder_shared.errors import PlanError
    from guilder_shared.study import Study
    from guilder_simulations.audit import trial

    found = trial.carry_out(
        Study.load(study),
        num_canaries=canaries,
        seed=secrets.randbits(32) if seed is None else seed,
        watch=lambda said: typer.echo(f"audit: {said}", err=True),
    )
    typer.echo(found.to_json() if as_json else found.to_text())
    if found.contradicted:
        raise PlanError(
            "GLD-P108",
            f"the audit shows epsilon above {found.epsilon:.3f}, which "
            f"{found.study!r} claims on this machine.",
            why="The training code does not do what is accounted for.",
            fix="Take part in no study; see `guilder client check` for what is wrong.",
        )
