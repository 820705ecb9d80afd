"""`guilder client install-service` and `guilder server install-service`."""

import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from guilder.units import Service

SiteOption = Annotated[
    Path, typer.Option("--site", help="The site file.", metavar="SITE.TOML")
]
ServerOption = Annotated[
    Path, typer.Option("--server", help="The server file.", metavar="SERVER.TOML")
]
SystemOption = Annotated[
    str,
    typer.Option(
        "--system", help="For the whole machine, run as this user.", metavar="USER"
    ),
]
CronOption = Annotated[
    bool, typer.Option("--cron", help="A crontab line, where there is no systemd.")
]
PrintOption = Annotated[
    bool, typer.Option("--print", help="Print what would be written; write nothing.")
]


def client_service(
    site: SiteOption = Path("site.toml"),
    system: SystemOption = "",
    cron: CronOption = False,
    only_print: PrintOption = False,
) -> None:
    """Keep this site's client running from the machine's start on.

    Writes one unit file, prints it whole, and starts nothing. As an ordinary user it is
    a service of your own, which needs lingering; with --system USER one of the machine.
    """
    from guilder.units import Service
    from guilder_client.settings import SiteFile

    settings = SiteFile.load(site)
    command = (sys.executable, "-m", "guilder", "client", "start")
    service = Service(
        room="client",
        who=f"site {settings.site.name}",
        command=(*command, "--site", str(site.absolute())),
        writable=(settings.site.state_dir,),
        gpu=settings.speed.device != "cpu",
    )
    _install(service, system, cron=cron, only_print=only_print)


def server_service(
    server: ServerOption = Path("server/server.toml"),
    system: SystemOption = "",
    cron: CronOption = False,
    only_print: PrintOption = False,
) -> None:
    """Keep the server running from the machine's start on; as for a client."""
    from guilder.units import Service
    from guilder_server.settings import ServerFile

    settings = ServerFile.load(server)
    command = (sys.executable, "-m", "guilder", "server", "start")
    ports = (settings.server.port, settings.server.control_port or 0)
    service = Service(
        room="server",
        who=settings.server.url,
        command=(*command, "--server", str(server.absolute())),
        writable=(settings.server.storage,),
        low_port=any(0 < port < 1024 for port in ports),
    )
    _install(service, system, cron=cron, only_print=only_print)


def _install(service: "Service", system: str, *, cron: bool, only_print: bool) -> None:
    from guilder import units

    user = system or None
    if cron or not (only_print or _has_systemd()):
        if not cron:
            typer.echo("systemd does not run here; cron can do it:")
        log = Path(service.writable[0]) / f"guilder-{service.room}.log"
        typer.echo(units.cron_line(service, log))
        typer.echo("next: crontab -e, and put this line in; it starts at the next boot")
        return
    text = units.unit(service, user=user)
    path = units.folder(user=user) / service.name
    if only_print:
        typer.echo(f"# {path}\n{text}", nl=False)
        return
    for folder in service.writable:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    typer.echo(f"wrote {path}:\n{text}", nl=False)
    of = "" if user else " --user"
    if user is None and not _lingers():
        typer.echo(
            "GLD-M009 your services end when you log out: lingering is off\n"
            f"  fix: loginctl enable-linger {getpass.getuser()}"
        )
    typer.echo(f"next: systemctl{of} daemon-reload")
    typer.echo(f"next: systemctl{of} enable --now {service.name}")


def _has_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def _lingers() -> bool:
    """Whether this user's services run without a login; False if nobody can say."""
    program = shutil.which("loginctl")
    if program is None:
        return False
    asked = ["show-user", str(os.getuid()), "--property=Linger", "--value"]
    try:
        done = subprocess.run(  # noqa: S603 - the system's own program, no shell
            [program, *asked], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() == "yes"
