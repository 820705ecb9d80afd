"""`guilder recipe …`: own kinds of task, as packages that each site installs itself."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Own recipes, without shipping code.", no_args_is_help=True)
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="As studies will name it: a-z, 0-9, -.")],
    folder: Annotated[Path, typer.Option("--dir", help="Where to write.")] = Path(),
) -> None:
    """Write a package with a recipe called NAME: a loss for each row, and metrics.

    It is an ordinary Python package; a site installs it itself, or does not.
    """
    from guilder.new_recipe import write

    made = write(name, folder)
    typer.echo(f"wrote {made}: edit its __init__.py, then")
    typer.echo(f"next: guilder recipe pack {made}")


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(help="The package's folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the wheel.")] = Path(),
) -> None:
    """Pack a recipe's package as a wheel; the same files give the same hash."""
    from guilder.wheel import pack_project

    path = pack_project(folder, out)
    typer.echo(f"wrote {path}")
    typer.echo(f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    typer.echo(f"next, at each site: guilder recipe allow {path}")


@app.command()
def allow(
    wheel: Annotated[Path, typer.Argument(help="The wheel.", exists=True)],
) -> None:
    """Print the lines with which a site or server file allows a wheel's recipes.

    Reads the wheel; installs and runs nothing. Look at its code before.
    """
    data = wheel.read_bytes()
    package, version = wheel.name.split("-")[:2]
    with zipfile.ZipFile(wheel) as archive:
        points = next(
            (n for n in archive.namelist() if n.endswith("/entry_points.txt")), None
        )
        text = archive.read(points).decode() if points else ""
    names = [
        line.partition("=")[0].strip()
        for line in text.partition("[guilder.recipes]")[2].splitlines()
        if "=" in line
    ]
    if not names:
        typer.echo(f"{wheel.name} holds no recipe", err=True)
        raise typer.Exit(2)
    for name in names:
        typer.echo(f"[recipe.{name}]")
        typer.echo(f'package = "{package.replace("_", "-")}"')
        typer.echo(f'version = "{version}"')
        typer.echo(f"wheel = {json.dumps(str(wheel.absolute()))}")
        typer.echo(f'sha256 = "{hashlib.sha256(data).hexdigest()}"')
    typer.echo(f"# and in [policy]: recipes = [{', '.join(map(json.dumps, names))}]")
    typer.echo(f"# then: pip install --no-deps {wheel}")


@app.command("list")
def list_recipes(as_json: JsonOption = False) -> None:
    """List the recipes that are installed here; none of another's is loaded."""
    from importlib.metadata import version

    from guilder_shared import recipes, tasks

    own = [(name, "guilder", version("guilder")) for name in sorted(tasks.RECIPES)]
    found = [*own, *recipes.found()]
    if as_json:
        keys = ("name", "package", "version")
        typer.echo(json.dumps([dict(zip(keys, each, strict=True)) for each in found]))
        return
    for name, package, number in found:
        typer.echo(f"{name:24} {package} {number}")
