"""`guilder client join` and `guilder run join`: one token, and one is a member."""

import sys
from pathlib import Path
from typing import Annotated

import typer

STDIN = "-"


def leave(
    site: Annotated[
        Path, typer.Option("--site", help="The site file.", metavar="SITE.TOML")
    ] = Path("site.toml"),
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the closing report.")
    ] = Path("reports"),
    offline: Annotated[
        bool, typer.Option("--offline", help="The server is gone: do not tell it.")
    ] = False,
) -> None:
    """Leave the consortium: studies end, unspent grants are freed, a report is written.

    The client must be stopped. The ledger and all keys stay: keep them. To come back
    takes a new invitation. Killed in the middle, the same command does the rest.
    """
    from guilder_client.leaving import leave as end
    from guilder_client.settings import SiteFile

    settings = SiteFile.load(site)
    end(settings, out, resign=not offline, tell=lambda line: typer.echo(line, err=True))
    typer.echo("left; keep the state folder and signing.key: they prove what was spent")


def join(
    token: Annotated[str, typer.Argument(help="The operator's word; - reads it.")],
    folder: Annotated[
        Path, typer.Option("--dir", help="Where keys and settings are written.")
    ] = Path(),
    wait_s: Annotated[
        float, typer.Option("--wait", help="Seconds to wait for an approval.")
    ] = 600,
) -> None:
    """Join by TOKEN: keys are made here and never leave; run twice, it is the same.

    The server must be the one that the token pins, before the token's secret is sent.
    A site gets site.toml to fill in, a person operator.toml for `--server`.
    """
    from guilder_client.join import join as join_by
    from guilder_shared.invitation import Token

    # "-": the word is typed or piped, where no list of processes shows it
    parsed = Token.parse(sys.stdin.readline() if token == STDIN else token)
    path = join_by(
        parsed, folder, wait_s=wait_s, tell=lambda line: typer.echo(line, err=True)
    )
    if parsed.role == "site":
        typer.echo(f"next: fill in {path}, then guilder config check {path}")
    else:
        typer.echo(f"next: guilder run list --server {path}")
