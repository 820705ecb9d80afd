"""`guilder model …`: whether a model can be trained privately, and at what size."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check models for private training.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep `check` a word of its own while it is the only one."""


@app.command()
def check(
    model: Annotated[
        str,
        typer.Argument(
            metavar="STUDY.TOML|MODULE:ATTRIBUTE",
            help="The model of a study, or your own: a torch module, or its maker.",
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Of a study: a.b=value.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--input", help="Of your own: one row's shape, as 3x32x32."),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", min=2, help="Of your own: rows hold so many tokens."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Tell all that keeps a model from private training, layer by layer.

    MODULE:ATTRIBUTE imports code of yours from this folder; a study carries none.
    Without --input only what shows without computing is found. Exit code 2 if anything
    is in the way.
    """
    from guilder_shared.training import inspection

    if Path(model).suffix == ".toml":
        from guilder_shared import recipes
        from guilder_shared.study import Study

        changes = tuple(overrides or ())
        recipes.trust_installed(Study.load(Path(model), changes).study.recipe)
        found = inspection.of_study(Path(model), changes)
    else:
        found = inspection.of_module(model, shape, tokens)
    typer.echo(json.dumps(found.to_json()) if as_json else found.to_text())
    raise typer.Exit(2 if found.findings else 0)
