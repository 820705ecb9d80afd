"""`guilder demo`: the command; `demo.py` tells the story."""

import json
from pathlib import Path
from typing import Annotated

import typer

from guilder_shared.errors import RunFailed


def demo(
    out: Annotated[
        Path, typer.Option("--out", help="Folder to leave everything in.")
    ] = Path("guilder-demo"),
    as_json: Annotated[
        bool, typer.Option("--json", help="The summary as one JSON line.")
    ] = False,
) -> None:
    """Train card-fraud detection across three banks, kill one, verify the reports.

    One server and three client processes on loopback; under a minute on two cores.
    """
    from guilder.demo import Story, tell

    summary = tell(Story(out, quiet=as_json))
    if as_json:
        typer.echo(json.dumps(summary))
    if not (summary["killed_and_resumed"] and summary["reports_verified"]):
        raise RunFailed("GLD-R020", "the demo did not show what it promises")
