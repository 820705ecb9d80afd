"""`guilder client check` and `guilder server check`: the doctor's report."""

import json
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
