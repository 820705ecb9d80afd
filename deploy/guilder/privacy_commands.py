"""`guilder privacy …`: the officer's commands. They never load torch."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from guilder import audit_commands, officer_commands, plan_commands

app = typer.Typer(
    help="Decide what studies may cost; read and verify what they have cost.",
    no_args_is_help=True,
)
app.command("officer-key")(officer_commands.officer_key)
app.command("budget")(officer_commands.budget)
app.command("approve")(officer_commands.approve)
app.command("revoke")(officer_commands.revoke)
app.command("acknowledge")(officer_commands.acknowledge)
app.command("excuse")(officer_commands.excuse)
app.command("hand-over")(officer_commands.hand_over)
app.command("audit")(audit_commands.audit)
app.command("plan")(plan_commands.plan)
app.command("forecast")(plan_commands.forecast)


@app.command()
def report(
    site: Annotated[
        Path, typer.Option("--site", help="The site file.", metavar="SITE.TOML")
    ] = Path("site.toml"),
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the report's files.")
    ] = Path("reports"),
    language: Annotated[
        str, typer.Option("--language", help="Of the page: en or zh.")
    ] = "en",
) -> None:
    """Write this site's signed privacy report, as JSON and as HTML."""
    from guilder_client.settings import SiteFile
    from guilder_client.site import read_ledger
    from guilder_shared import reports
    from guilder_shared.reports.texts import LANGUAGES

    if language not in LANGUAGES:
        raise typer.BadParameter(f"{language!r} is not one of en, zh")
    settings = SiteFile.load(site)
    with read_ledger(settings) as ledger:
        path = reports.write(ledger, out, language)
    typer.echo(str(path))


@app.command()
def exclusion(
    dataset: Annotated[
        str, typer.Argument(help="The NAME of its table data.NAME in the site file.")
    ],
    site: Annotated[
        Path, typer.Option("--site", help="The site file.", metavar="SITE.TOML")
    ] = Path("site.toml"),
    out: Annotated[
        Path | None, typer.Option("--out", help="A file; otherwise stdout.")
    ] = None,
) -> None:
    """Sign that this site leaves a list of persons out of DATASET, without ids.

    For a person who objected or asked for erasure. The client may be running.
    """
    from guilder_client import statement
    from guilder_client.settings import SiteFile
    from guilder_client.site import read_ledger
    from guilder_shared import durable

    with read_ledger(SiteFile.load(site)) as ledger:
        told = statement.state(ledger, dataset)
    if out is not None:
        durable.write(out, told)
    typer.echo(told.decode() if out is None else str(out), nl=out is not None)


@app.command()
def consortium(
    files: Annotated[list[Path], typer.Argument(help="Reports, NAME.report.json.")],
    out: Annotated[
        Path, typer.Option("--out", help="The page to write.", metavar="HTML")
    ] = Path("consortium.html"),
    language: Annotated[
        str, typer.Option("--language", help="Of the page: en or zh.")
    ] = "en",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout.")
    ] = False,
) -> None:
    """Verify several sites' reports and show them on one page.

    Beside the page it writes a file of the same name that ends with .json and holds the
    reports: `guilder privacy verify` takes it. Exit code 5 if one was changed.
    """
    from guilder_shared import durable
    from guilder_shared.reports import consortium as together
    from guilder_shared.reports import consortium_page
    from guilder_shared.reports.texts import LANGUAGES

    if language not in LANGUAGES:
        raise typer.BadParameter(f"{language!r} is not one of en, zh")
    found = together.combine(files)
    beside = out.with_suffix(".json")
    html = consortium_page.page(found, language, file=beside.name)
    durable.write(out, html.encode())
    together.write(found, beside)
    told = {name: part for name, part in found.items() if name != "reports"}
    typer.echo(json.dumps(told) if as_json else str(out))


@app.command()
def export(
    site: Annotated[
        Path, typer.Option("--site", help="The site file.", metavar="SITE.TOML")
    ] = Path("site.toml"),
    out: Annotated[
        Path, typer.Option("--out", help="The file to write.", metavar="JSONL")
    ] = Path("ledger.jsonl"),
) -> None:
    """Write the whole ledger as lines of JSON, signed; to compare reports with."""
    from guilder_client.settings import SiteFile
    from guilder_client.site import read_ledger
    from guilder_shared import durable
    from guilder_shared.reports.export import export as exported

    with read_ledger(SiteFile.load(site)) as ledger:
        durable.write(out, exported(ledger))
    typer.echo(str(out))


@app.command()
def verify(
    file: Annotated[
        Path, typer.Argument(help="A report, an export or a consortium's report.")
    ],
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="A site's public key as you know it; repeatable."),
    ] = None,
    officer: Annotated[
        list[str] | None,
        typer.Option(
            "--officer",
            help="The officer's key that the ledger began with; repeatable.",
        ),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option("--ledger", help="Also compare with an export of the ledger."),
    ] = None,
    cross_check: Annotated[
        bool,
        typer.Option("--cross-check", help="Also ask two other accountants; seconds."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout.")
    ] = False,
) -> None:
    """Check signature and chain of FILE and recompute its epsilon, offline.

    Exit code 0: every number follows from signed entries. 5: something was changed.
    """
    from guilder_shared import reports

    keys, officers = _keys(key, "--key"), _keys(officer, "--officer")
    found = reports.verify_any(
        file, keys=keys, officers=officers, ledger=ledger, cross=cross_check
    )
    typer.echo(json.dumps(found.to_json()) if as_json else found.to_text())


def _keys(typed: list[str] | None, option: str) -> list[str]:
    for key in typed or []:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", key):
            raise typer.BadParameter(f"{option}: a public key is 64 hexadecimal digits")
    return [key.lower() for key in typed or []]


@app.command()
def verifier(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the two files.", metavar="DIR")
    ] = Path(),
) -> None:
    """Write the verifiers that need no Guilder: guilder-verify.pyz and verify.html.

    For an auditor: the first runs on any Python from 3.9 on, the second in a browser.
    """
    from guilder import packing

    for path in packing.pack(out):
        typer.echo(str(path))
