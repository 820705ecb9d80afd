"""`guilder server witnessed`: what a site must charge that lost part of its ledger."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from guilder_server.commands import HERE, JsonOption, ServerOption


def witnessed(
    site: Annotated[str, typer.Argument(help="The site's name.", metavar="SITE")],
    after: Annotated[
        int, typer.Option("--after", min=0, help="The newest number the ledger holds.")
    ] = 0,
    as_json: JsonOption = False,
    server: ServerOption = HERE,
) -> None:
    """Say which studies SITE sent results for after a number, and what they cost.

    For a site whose ledger was lost or is an old copy (GLD-I080): its officer
    charges the sum with `guilder privacy acknowledge`, as the last line has it.
    """
    from guilder_server.heads import FILE, Heads
    from guilder_server.settings import ServerFile

    storage = ServerFile.load(server).server.storage
    heads = Heads(storage / FILE)
    newest = heads.newest(site)
    studies = [
        {"run_id": run_id, "results": results, **_cost(storage / "runs" / run_id)}
        for run_id, results in heads.runs_after(site, after).items()
    ]
    told = {
        "site": site,
        "head": None if newest is None else f"{newest.head_no}:{newest.commitment}",
        "studies": studies,
        "epsilon": sum(each["epsilon"] for each in studies),
        "delta": sum(each["delta"] for each in studies),
    }
    if as_json:
        typer.echo(json.dumps(told))
        return
    for each in studies:
        typer.echo(
            f"{each['run_id']}  {each['name']}  results {each['results']}  "
            f"epsilon {each['epsilon']:g}  delta {each['delta']:g}"
        )
    typer.echo(
        f"nothing after {after} is remembered of {site!r}"
        if not studies
        else f"guilder privacy acknowledge {told['head']} --budget NAME "
        f"--epsilon {told['epsilon']:g} --delta {told['delta']:g}"
    )


def _cost(folder: Path) -> dict[str, Any]:
    """The whole study's figures: which of its turns are lost is not known."""
    from guilder_shared.study import Study

    study = Study.load(folder / "study.toml")
    unprotected = study.privacy.mechanism == "none"
    return {
        "name": study.study.name,
        "epsilon": 0.0 if unprotected else float(study.privacy.epsilon or 0.0),
        "delta": 0.0 if unprotected else float(study.privacy.delta or 0.0),
    }
