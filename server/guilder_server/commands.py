"""`guilder server …` and `guilder run …`: the operator's commands."""

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from guilder_shared.plain_text import one_line

server_app = typer.Typer(help="Run the aggregation server.", no_args_is_help=True)
run_app = typer.Typer(help="Submit and follow studies.", no_args_is_help=True)
ServerOption = Annotated[
    Path, typer.Option("--server", help="The server file.", metavar="SERVER.TOML")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="Of the issuing key.", metavar="FILE"),
]
RunArgument = Annotated[str, typer.Argument(help="The run's id.", metavar="RUN")]
HERE = Path("server/server.toml")
LONGEST = 4000  # characters of a line: hundreds of sites in a round


@server_app.command()
def init(
    local_sites: Annotated[
        str,
        typer.Option("--local-sites", help="For a trial: make these sites too, a,b,c."),
    ] = "",
    folder: Annotated[Path, typer.Option("--dir", help="Where to write.")] = Path(),
    host: Annotated[
        str, typer.Option(help="Name or address by which sites reach the server.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The public port.")] = 9443,
    control_port: Annotated[
        int | None, typer.Option(help="Another port for `guilder run`.")
    ] = None,
    enrolment_port: Annotated[
        int | None, typer.Option(help="Another port for joining.")
    ] = None,
    passphrase_file: PassphraseOption = None,
    ask: Annotated[
        bool, typer.Option("--ask-passphrase", help="Encrypt the authority's keys.")
    ] = False,
) -> None:
    """Make a consortium: its authority, the server's certificate, the first admin.

    Sites then join by invitation, with keys that never leave them. The authority's two
    keys are encrypted if a passphrase is given (--passphrase-file, GUILDER_PASSPHRASE,
    --ask-passphrase), else readable by their owner alone.

    With --local-sites all keys are made here, for a trial: each sites/NAME folder then
    goes to its institution by a safe way, each officers/NAME folder to its officer.
    """
    from guilder_server import passphrase
    from guilder_server.init import init_local, init_server

    next_ = f"next: guilder server start --server {folder / HERE}"
    if not local_sites:
        chosen = (
            typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True)
            if ask
            else ""
        )
        secret = chosen.encode() or passphrase.read(passphrase_file)
        pin = init_server(
            folder,
            host=host,
            port=port,
            control_port=control_port,
            enrolment_port=enrolment_port,
            passphrase=secret,
        )
        typer.echo(f"wrote {folder / 'server'}; the authority's pin is {pin}")
        typer.echo(f"move {folder / 'server' / 'root.key'} to a place that is offline")
        typer.echo(next_)
        typer.echo(f"then: guilder server invite SITE --server {folder / HERE}")
        return
    names = [name.strip() for name in local_sites.split(",") if name.strip()]
    init_local(folder, names, host=host, port=port, control_port=control_port)
    typer.echo(
        f"wrote {folder / 'server'} and {len(names)} folders in {folder / 'sites'} "
        f"and in {folder / 'officers'}"
    )
    typer.echo(next_)


@server_app.command()
def start(
    server: ServerOption = HERE, passphrase_file: PassphraseOption = None
) -> None:
    """Serve sites and the control channel until stopped; open runs go on."""
    from guilder_server import passphrase
    from guilder_server.resident import run_server
    from guilder_server.settings import ServerFile
    from guilder_shared.leaving import serve_until_signalled

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = ServerFile.load(server)
    secret = passphrase.read(passphrase_file)
    serve_until_signalled(lambda stop: run_server(settings, stop, secret))


@run_app.command()
def submit(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key: a.b=value.")
    ] = None,
    sites: Annotated[
        str, typer.Option("--sites", help="Only these sites: a,b,c.")
    ] = "",
    follow: Annotated[
        bool, typer.Option("--watch", help="Follow the run to its end.")
    ] = False,
    as_json: JsonOption = False,
    server: ServerOption = HERE,
) -> None:
    """Submit STUDY: its privacy plan is solved once, then sites are offered it."""
    from guilder_shared.study import Study

    loaded = Study.load(study, tuple(overrides or ()))
    only = [name.strip() for name in sites.split(",") if name.strip()]
    with _control(server) as control:
        run_id = control.submit(loaded.canonical(), only)
        typer.echo(json.dumps({"run_id": run_id}) if as_json else run_id)
        if follow:
            _follow(control, run_id, as_json)


@run_app.command()
def watch(
    run_id: RunArgument, as_json: JsonOption = False, server: ServerOption = HERE
) -> None:
    """Follow RUN to its end; the exit code is the outcome of the run."""
    with _control(server) as control:
        _follow(control, run_id, as_json)


@run_app.command("list")
def list_runs(as_json: JsonOption = False, server: ServerOption = HERE) -> None:
    """List all runs, newest first."""
    with _control(server) as control:
        for run in control.list():
            typer.echo(json.dumps(run) if as_json else _run_line(run))


@run_app.command()
def resume(run_id: RunArgument, server: ServerOption = HERE) -> None:
    """Go on with a failed or stopped RUN at the round it was in."""
    with _control(server) as control:
        control.resume(run_id)
    typer.echo(f"{run_id} goes on")


@run_app.command()
def stop(run_id: RunArgument, server: ServerOption = HERE) -> None:
    """Stop RUN at once; `guilder run resume` goes on with it."""
    with _control(server) as control:
        control.stop(run_id)
    typer.echo(f"{run_id} is stopping")


def _control(server: Path) -> Any:
    from guilder_server.console.control import ControlClient
    from guilder_server.settings import load_console

    return ControlClient.from_settings(load_console(server))


def _follow(control: Any, run_id: str, as_json: bool) -> None:
    last: dict[str, Any] = {}
    for event in control.watch(run_id):
        last = event if event["kind"] != "awaiting" else last
        typer.echo(json.dumps(event) if as_json else _event_line(event))
    if last.get("exit_code"):
        typer.echo(one_line(f"{last['id']} {last['what']}"), err=True)
        for part in ("why", "fix"):
            if last.get(part):
                typer.echo(f"  {part}: {one_line(str(last[part]))}", err=True)
        raise typer.Exit(int(last["exit_code"]))


def _event_line(event: dict[str, Any]) -> str:
    if event["kind"] in ("round", "measured"):
        metrics = "  ".join(f"{k} {v:.4f}" for k, v in event["metrics"].items())
        sites = ", ".join(event["sites"])
        when = "round" if event["kind"] == "round" else "measured after round"
        return one_line(f"{when} {event['round']}  {metrics}  sites {sites}", LONGEST)
    if event["kind"] in ("awaiting", "run-waits-for-consent"):
        waits = "; ".join(f"{site} {why}" for site, why in event["sites"].items())
        kind = event["kind"].removeprefix("run-")
        return one_line(f"{kind}  {waits or 'nobody any more'}", LONGEST)
    rest = {k: v for k, v in event.items() if k not in ("t", "kind") and v}
    parts = [event["kind"], *(f"{k}={v}" for k, v in rest.items())]
    return one_line(" ".join(parts), LONGEST)


def _run_line(run: dict[str, Any]) -> str:
    told = run["error"]["what"] if run["error"] else ", ".join(run.get("waits", ()))
    done = f"{run['round']}/{run['rounds']}"
    line = f"{run['run_id']}  {run['state']:17}  round {done}  {told}".rstrip()
    return one_line(line, LONGEST)
