"""`guilder config …`: what the three files may hold, and whether one is right."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from guilder_shared.settings.files import File

app = typer.Typer(
    help="Check study, site and server files; their JSON Schemas.", no_args_is_help=True
)


class Kind(StrEnum):
    """The three files that a person edits."""

    STUDY = "study"
    SITE = "site"
    SERVER = "server"


KindArgument = Annotated[Kind, typer.Argument(help="Which of the three files.")]


@app.command()
def schema(kind: KindArgument) -> None:
    """Print the JSON Schema of a file, for editors that complete and check TOML."""
    printed = _model(kind).model_json_schema()
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    typer.echo(json.dumps(draft | printed, indent=2, ensure_ascii=False))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A study, site or server file.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key: a.b=value.")
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="Which file it is; else by its keys.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Tell every mistake in FILE at once, or that it is right."""
    from guilder_shared.settings.files import load_toml, tables_in
    from guilder_shared.study import Study

    chosen = kind or _likely(tables_in(file))
    loaded = load_toml(file, _model(chosen), tuple(overrides or ()))
    facts = {"file": str(file), "kind": chosen.value, "ok": True}
    if isinstance(loaded, Study):
        facts["digest"] = loaded.digest()
    if as_json:
        typer.echo(json.dumps(facts))
        return
    digest = f", digest {facts['digest']}" if "digest" in facts else ""
    typer.echo(f"{file}: a {chosen.value} file without mistakes{digest}")


def _model(kind: Kind) -> "type[File]":
    from guilder_client.settings import SiteFile
    from guilder_server.settings import ServerFile
    from guilder_shared.study import Study

    models: dict[Kind, type[File]] = {
        Kind.STUDY: Study,
        Kind.SITE: SiteFile,
        Kind.SERVER: ServerFile,
    }
    return models[kind]


def _likely(tables: set[str]) -> Kind:
    """The kind of file that has most of these tables; a study if none does."""
    shared = {kind: len(tables & set(_model(kind).model_fields)) for kind in Kind}
    return max(Kind, key=lambda kind: shared[kind])
