"""`guilder bundle` and `guilder sbom`: for machines without a network, and for IT."""

import json
from pathlib import Path
from typing import Annotated

import typer


def bundle(
    out: Annotated[Path, typer.Argument(help="Folder to be made.", metavar="FOLDER")],
    extra: Annotated[
        list[str] | None, typer.Option("--extra", help="Also this extra. Repeatable.")
    ] = None,
    wheels: Annotated[
        Path | None, typer.Option("--wheels", help="Take wheels from here, no index.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Bundle Guilder and all it needs, in the versions of this machine, with hashes.

    For a machine of the same kind without a network: installed there by `sh install.sh`
    without root, compiler or network. README.txt says first what that machine needs.
    The number printed last, of SHA256SUMS, goes there by another way than the bundle.
    """
    from guilder import bundle as room

    if out.exists() and any(out.iterdir()):
        typer.echo(f"{out} is not empty", err=True)
        raise typer.Exit(2)
    names = [*room.closure(tuple(extra or ())), "pip"]
    room.fetch(out / "wheels", names, wheels=wheels)
    room.own_wheel(out / "wheels")
    digest = room.assemble(out)
    num = len(list((out / "wheels").iterdir()))
    if as_json:
        told = {"folder": str(out), "wheels": num, "sha256sums": digest}
        typer.echo(json.dumps(told))
        return
    typer.echo((out / "README.txt").read_text("utf-8"), nl=False)
    typer.echo(f"wrote {out}: {num} wheels; SHA256SUMS is {digest}")
    typer.echo(
        "next: tell this number, by another way than the bundle, to who installs"
    )


def bill() -> None:
    """Print what is installed here as a CycloneDX 1.5 bill of materials, JSON."""
    from guilder import sbom

    typer.echo(json.dumps(sbom.of_installed(), indent=1, sort_keys=True))
