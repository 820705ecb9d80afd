"""The command `guilder`: mounts the groups, and turns errors into exit codes.

Nothing heavy is imported here or by any `commands` module at import time: `--help`
loads neither torch nor Flower.
"""

import contextlib
import sys
from typing import Annotated

import typer

from guilder import (
    bundle_commands,
    config_commands,
    demo_commands,
    doctor_commands,
    endings,
    service_commands,
)
from guilder.model_commands import app as model_app
from guilder.privacy_commands import app as privacy_app
from guilder.recipe_commands import app as recipe_app
from guilder_client.commands import app as client_app
from guilder_client.join_commands import join, leave
from guilder_server.commands import run_app, server_app
from guilder_server.member_commands import (
    invite,
    log,
    reissue,
    remove,
    revoke,
    sites,
)
from guilder_server.witness_commands import witnessed
from guilder_simulations import commands as simulation_commands

app = typer.Typer(
    name="guilder",
    help="Federated learning with differential privacy, out of a budget you can audit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(server_app, name="server")
app.add_typer(client_app, name="client")
app.add_typer(run_app, name="run")
app.add_typer(privacy_app, name="privacy")
app.add_typer(model_app, name="model")
app.add_typer(recipe_app, name="recipe")
app.add_typer(config_commands.app, name="config")
server_app.command("witnessed")(witnessed)
app.command("bundle")(bundle_commands.bundle)
app.command("sbom")(bundle_commands.bill)
server_app.command("install-service")(service_commands.server_service)
client_app.command("install-service")(service_commands.client_service)
server_app.command("check")(doctor_commands.server_check)
client_app.command("start")(doctor_commands.client_start)
client_app.command("check")(doctor_commands.client_check)
for verb in (invite, sites, revoke, remove, reissue, log):
    server_app.command(verb.__name__)(verb)
client_app.command("leave")(leave)
for group in (client_app, run_app):
    group.command("join")(join)
app.command("simulate")(simulation_commands.simulate)
app.command("demo")(demo_commands.demo)


@app.callback()
def root(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks of errors.")
    ] = False,
    non_interactive: Annotated[
        bool, typer.Option("--non-interactive", help="Never ask; fail instead.")
    ] = False,
) -> None:
    """Read the options of every command; `main` looks at --debug itself."""


@app.command("version")
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(installed("guilder"))


def main() -> None:
    """Run the command; exit with the code its outcome deserves."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        known = endings.told(error)
        with contextlib.suppress(OSError):  # nobody listens
            typer.echo(str(known), err=True)
        sys.exit(known.exit_code)
