"""`guilder client …`: the resident client of one institution."""

import logging
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Take part in studies as one institution.", no_args_is_help=True)
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

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_client(SiteFile.load(site), stop)


@app.command()
def check(site: SiteOption = Path("site.toml")) -> None:
    """Check the site file, the keys, the ledger and every dataset's file."""
    from guilder_client.settings import SiteFile
    from guilder_client.site import Site

    settings = SiteFile.load(site)
    opened = Site.open(settings)
    for name in settings.data:
        typer.echo(f"data {name}: public size {settings.data[name].public_size}")
    opened.ledger.shut()
    typer.echo(f"site {opened.name}: keys and ledger are in order")
