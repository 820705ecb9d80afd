"""`guilder client …`: the resident client of one institution."""

from pathlib import Path
from typing import Annotated

import typer

from guilder_client import studies_commands

app = typer.Typer(help="Take part in studies as one institution.", no_args_is_help=True)
app.add_typer(studies_commands.app, name="studies")
app.command()(studies_commands.pause)
SiteOption = Annotated[
    Path, typer.Option("--site", help="The site file.", metavar="SITE.TOML")
]


@app.command()
def agree(
    grant: Annotated[str, typer.Argument(help="The study, as GLD-D043 names it.")],
    site: SiteOption = Path("site.toml"),
) -> None:
    """Let a study go on whose rows changed while it ran.

    For [policy] on_change = "ask". Changes a file of this site alone; the client may
    be running, and goes on at its next turn.
    """
    from guilder_client.cohorts import Cohorts
    from guilder_client.settings import SiteFile

    cohorts = Cohorts(SiteFile.load(site).site.state_dir / "cohorts")
    if not cohorts.agree(grant):
        typer.echo(f"{grant}: nothing waits for you")
        raise typer.Exit(2)
    typer.echo(f"{grant}: goes on with the rows of now")
