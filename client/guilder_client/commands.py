"""`guilder client …`: the resident client of one institution."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from guilder_client import studies_commands

app = typer.Typer(help="Take part in studies as one institution.", no_args_is_help=True)
app.add_typer(studies_commands.app, name="studies")
app.command()(studies_commands.pause)
SiteOption = Annotated[
    Path, typer.Option("--site", help="The site file.", metavar="SITE.TOML")
]


@app.command()
def start(site: SiteOption = Path("site.toml")) -> None:
    """Keep this site online: answer offers, take turns, until stopped.

    Connects outbound only. Killed at any moment, the next start goes on where it was.
    """
    from guilder_client.resident import run_client
    from guilder_client.settings import SiteFile
    from guilder_shared.leaving import serve_until_signalled

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = SiteFile.load(site)
    serve_until_signalled(lambda stop: run_client(settings, stop))


@app.command()
def check(
    site: SiteOption = Path("site.toml"),
    study: Annotated[
        Path | None,
        typer.Option("--study", help="Also check policy, data and code for it."),
    ] = None,
) -> None:
    """Check the site file, the keys and the ledger.

    With --study also what the policy says of it, whether the data fits, and by the
    self-test on made-up rows whether this machine keeps its promise. What it says about
    rows stays here; nothing is sent and nothing is charged.
    """
    from guilder_client.settings import SiteFile
    from guilder_client.site import Site

    opened = Site.open(SiteFile.load(site))
    try:
        typer.echo(f"site {opened.name}: site file, keys and ledger are in order")
        if study is not None:
            typer.echo(_check_study(opened, study))
    finally:
        opened.ledger.shut()


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


def _check_study(site: Any, path: Path) -> str:
    from guilder_client import policy
    from guilder_shared.privacy import accounting
    from guilder_shared.study import Study
    from guilder_shared.training import selftest

    study = Study.load(path)
    policy.permit(site.settings, study)
    public_size = site.public_size(
        study
    )  # PolicyRefused if it is not mapped, or not typed
    policy.demand_small_delta(site, study)
    policy.demand_columns(site, study)
    leave_out = site.exclusions.of(study)
    source = site.source(study.data.dataset)
    source.check_cells(study.site_contract, leave_out)
    fits = f"study {study.study.name}: allowed here, and its data fits the contract"
    plan = accounting.solve(study)
    passed = selftest.ensure(study, plan, public_size=public_size)
    if passed is None:
        return f"{fits}; without protection there is nothing to test"
    return f"{fits}; self-test passed: {', '.join(passed.checks)}"
