"""`guilder client check`, `client start` and `server check`: the doctor looks first."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from guilder.doctor.finding import Finding

SiteOption = Annotated[
    Path, typer.Option("--site", help="The site file.", metavar="SITE.TOML")
]
ServerOption = Annotated[
    Path, typer.Option("--server", help="The server file.", metavar="SERVER.TOML")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="End with 1 where there are warnings.")
]


def client_check(
    site: SiteOption = Path("site.toml"),
    study: Annotated[
        Path | None,
        typer.Option("--study", help="Also policy, rows and code for this study."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Leave the network out.")
    ] = False,
    firewall_request: Annotated[
        bool, typer.Option("--firewall-request", help="Write the letter to IT instead.")
    ] = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check network, clock, keys, machine, versions, ledger and budgets of this site.

    With --study also what the policy says of it, whether the rows fit its contract, and
    by the self-test on made-up rows whether this machine keeps its promise. What it
    says about rows stays here; nothing is sent but a handshake and a head, and nothing
    is charged.
    """
    from guilder.doctor import letter
    from guilder.doctor import site as site_doctor
    from guilder_client.settings import SiteFile
    from guilder_shared.study import Study

    settings = SiteFile.load(site)
    if firewall_request:
        typer.echo(letter.firewall_request(settings, str(site)), nl=False)
        return
    loaded = None if study is None else Study.load(study)
    found = site_doctor.check(settings, loaded, offline=offline)
    _tell(found, strict=strict, as_json=as_json)


def client_start(site: SiteOption = Path("site.toml")) -> None:
    """Keep this site online: answer offers, take turns, until stopped.

    Connects outbound only. Killed at any moment, the next start goes on where it was.
    What it would fail of anyway is looked at first, in a moment: settings, keys,
    certificate, disk, clock, proxy, ledger. `guilder client check` looks at the rest.
    """
    from guilder.doctor import start
    from guilder.doctor.finding import exit_code
    from guilder_client.resident import run_client
    from guilder_client.settings import SiteFile
    from guilder_shared.leaving import serve_until_signalled

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = SiteFile.load(site)
    found = start.check(settings)
    for each in found:
        if each.state == "wrong":
            typer.echo(f"{each.id} {each.what}\n  why: {each.why}", err=True)
            typer.echo(f"  fix: {each.fix}", err=True)
    if code := exit_code(found):
        raise typer.Exit(code)
    told = [f"{each.id} {each.what}; {each.fix}" for each in found]
    serve_until_signalled(lambda stop: run_client(settings, stop, told))


def server_check(
    server: ServerOption = Path("server/server.toml"),
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check name, ports, keys, sites' certificates, machine, versions and runs.

    A server may be running: then its ports count as its own.
    """
    from guilder.doctor import server as server_doctor
    from guilder_server.settings import ServerFile

    found = server_doctor.check(ServerFile.load(server))
    _tell(found, strict=strict, as_json=as_json)


def _tell(found: "Iterable[Finding]", *, strict: bool, as_json: bool) -> None:
    from guilder.doctor.finding import as_json as told
    from guilder.doctor.finding import exit_code, lines

    kept = list(found)
    code = exit_code(kept, strict=strict)
    if as_json:
        typer.echo(json.dumps(told(kept, code=code)))
    else:
        typer.echo("\n".join(lines(kept)))
    raise typer.Exit(code)
