"""`guilder client studies …` and `client pause`: what people at a site decide."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from guilder_client.offers import Offered, Offers
    from guilder_client.settings import SiteFile
    from guilder_shared.privacy.ledger import Grant

app = typer.Typer(
    help="Look at the studies offered to this site, and decide.", no_args_is_help=True
)
SiteOption = Annotated[
    Path, typer.Option("--site", help="The site file.", metavar="SITE.TOML")
]
StudyArgument = Annotated[
    str, typer.Argument(help="Its digest, or the start, or its name.", metavar="STUDY")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
HERE = Path("site.toml")
SHORT = 12  # characters of a digest, where people read it


@app.command("list")
def list_studies(site: SiteOption = HERE, as_json: JsonOption = False) -> None:
    """List what was offered, the newest first, and what became of it."""
    settings, offers = _open(site)
    grants = _grants(settings)
    found = [_summary(each, offers, grants) for each in offers.all()]
    if as_json:
        typer.echo(json.dumps(found))
        return
    if not found:
        typer.echo("no study was offered yet")
    for each in found:
        typer.echo(
            f"{each['digest'][:SHORT]}  {each['name']:20}  epsilon "
            f"{_epsilon(each['epsilon'])}  {each['state']}"
        )


@app.command()
def show(
    study: StudyArgument, site: SiteOption = HERE, as_json: JsonOption = False
) -> None:
    """Show what an offered study is, what it costs here, and what it sends.

    Reads the ledger; reads no row and writes nothing.
    """
    from guilder_client import forecasts

    settings, offers = _open(site)
    offered = offers.find(study)
    summary = _summary(offered, offers, _grants(settings))
    if as_json:
        sends = _sends(settings, offered)
        typer.echo(json.dumps({**summary, "sends": sends, "study": offered.study}))
        return
    for line in forecasts.lines(settings, offered.read()):
        typer.echo(line)
    typer.echo("\n".join(_sends_text(_sends(settings, offered))))
    typer.echo(f"state: {summary['state']}")
    short = offered.digest[:SHORT]
    typer.echo(f"next: guilder client studies preview | accept | refuse {short}")


@app.command()
def preview(
    study: StudyArgument, site: SiteOption = HERE, as_json: JsonOption = False
) -> None:
    """Run one turn of a study here and list every field that would leave.

    On made-up rows, with a ledger in memory and no network: your rows are not read,
    nothing is sent, nothing is charged and nothing is kept. A real turn sends the same
    fields.
    """
    from guilder_client.rehearsal import preview as rehearse

    settings, offers = _open(site)
    offered = offers.find(study)
    found = rehearse(settings, offered)
    if as_json:
        told = [{"where": f.where, "name": f.name, "kind": f.kind} for f in found]
        typer.echo(json.dumps({"digest": offered.digest, "fields": told}))
        return
    where = ""
    for each in found:
        if each.where != where:
            where = each.where
            typer.echo(where)
        size = "" if each.num_bytes is None else f", {each.num_bytes} bytes"
        typer.echo(f"  {each.name}: {each.kind}{size}")
    typer.echo(
        f"{len(found)} fields; rows: made up; sent: nothing; charged: nothing; "
        "kept: nothing"
    )


@app.command()
def accept(study: StudyArgument, site: SiteOption = HERE) -> None:
    """Let an offered study run here, if an officer's order covers it.

    The decision is about the digest: an edited study needs another one.
    """
    from guilder_client import consent, policy
    from guilder_client.inbox import Inbox
    from guilder_client.offers import ACCEPTED
    from guilder_client.site import read_ledger
    from guilder_shared.officer import read_public_key

    settings, offers = _open(site)
    offered = offers.find(study)
    policy.permit(settings, offered.read())
    waiting = Inbox(settings.site.state_dir / "orders").new()
    officer = read_public_key(settings.keys.officer)
    with read_ledger(settings) as ledger:
        consent.demand_permission(ledger, offered, waiting, officer)
    offers.decide(offered.digest, ACCEPTED)
    typer.echo(f"accepted {offered.digest}; a running client takes part when asked")


@app.command()
def refuse(study: StudyArgument, site: SiteOption = HERE) -> None:
    """Refuse a study: no offer is accepted, and no turn of it is taken any more.

    What was charged stays charged, and what has left cannot be taken back.
    """
    from guilder_client.offers import REFUSED

    _, offers = _open(site)
    offered = offers.find(study)
    offers.decide(offered.digest, REFUSED)
    typer.echo(f"refused {offered.digest}; `accept` takes it back")


def pause(
    site: SiteOption = HERE,
    now: Annotated[
        bool, typer.Option("--now", help="Also keep what is computed already.")
    ] = False,
    end: Annotated[bool, typer.Option("--end", help="Let the site go on.")] = False,
) -> None:
    """Take no turn and accept no study until `--end`; survives a restart.

    Without --now a turn that has begun still sends its result. With it nothing computed
    from rows leaves from this moment on: an upload under way is broken off, and the
    sealed turn waits here for the end of the pause. The server waits meanwhile, to
    its deadlines.
    """
    from guilder_client.pause import Pause
    from guilder_client.settings import SiteFile

    settings = SiteFile.load(site)
    switch = Pause(settings.site.state_dir)
    if end:
        was = switch.end()
        typer.echo("the site goes on" if was else "the site was not paused")
        return
    state = switch.begin(now=now)
    rest = "nothing leaves" if state.now else "a turn that has begun may still end"
    typer.echo(f"paused since {state.since}: no new turn; {rest}")
    typer.echo("next: guilder client pause --end")


def _open(site: Path) -> "tuple[SiteFile, Offers]":
    from guilder_client.offers import Offers
    from guilder_client.settings import SiteFile

    settings = SiteFile.load(site)
    return settings, Offers(settings.site.state_dir / "studies")


def _grants(settings: "SiteFile") -> "list[Grant]":
    from guilder_client.site import read_ledger

    if not (settings.site.state_dir / "ledger.db").exists():
        return []
    with read_ledger(settings) as ledger:
        return ledger.grants()


def _summary(
    offered: "Offered", offers: "Offers", grants: "list[Grant]"
) -> dict[str, Any]:
    study = offered.read()
    protected = study.privacy.mechanism != "none"
    return {
        "digest": offered.digest,
        "run_id": offered.run_id,
        "name": study.study.name,
        "recipe": study.study.recipe,
        "unit": study.privacy.unit,
        "epsilon": study.privacy.epsilon if protected else None,
        "delta": study.privacy.delta,
        "first_s": offered.first_s,
        "last_s": offered.last_s,
        "decision": offers.decision(offered.digest),
        "state": _state(offered, offers, grants),
    }


def _state(offered: "Offered", offers: "Offers", grants: "list[Grant]") -> str:
    run = (offered.run_id, offered.digest)
    decision = offers.decision(offered.digest)
    if decision == "refused":
        return "refused here"
    for grant in grants:
        if (grant.run_id, grant.study_digest) == run:
            turns = f"{len(grant.turns)} of {grant.num_turns} turns"
            return f"{'ended' if grant.closed else 'runs'}, {turns} charged"
    if offered.verdict == "busy":
        return "accepted" if decision == "accepted" else f"waits: {offered.reason}"
    return decision or f"{offered.verdict}: {offered.reason}"


def _sends(settings: "SiteFile", offered: "Offered") -> dict[str, Any]:
    """What leaves in all turns together, by the study alone."""
    from guilder_shared import recipes
    from guilder_shared.models import registry
    from guilder_shared.training import asked, charged

    study = offered.read()
    recipes.admit(settings.recipe, study.study.recipe, who=settings.site.name)
    shapes = registry.shapes(study)
    numbers = sum(_product(shape) for shape in shapes.values())
    last, room = study.measuring_round, asked if study.statistics else charged
    widths = {} if last is None else room.widths(study)
    return {
        "turns": offered.plan.num_turns,
        "tensors": {name: list(shape) for name, shape in shapes.items()},
        "numbers_a_turn": numbers,
        "figures": widths,
        "turns_with_figures": sum(study.measures(n + 1) for n in range(last or 0)),
    }


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for length in shape:
        result *= length
    return result


def _sends_text(sends: dict[str, Any]) -> Iterator[str]:
    what, num = "one sealed update of", sends["numbers_a_turn"]
    figures = sum(sends["figures"].values())
    if not num:  # nothing is trained
        what, num, figures = "one sealed vector of", figures, 0
    yield (
        f"sends, in each of at most {sends['turns']} turns: {what} {num:,} noised "
        f"numbers ({4 * num:,} bytes), and one word; never a row, a count or a message "
        "of an error"
    )
    if figures:
        yield (
            f"sends, in {sends['turns_with_figures']} of these turns, also or only "
            f"{figures:,} noised numbers of the units held out"
        )
    for name, shape in sends["tensors"].items():
        yield f"  {name} {tuple(shape)}"
    for name, width in sends["figures"].items():
        yield f"  {name} ({width},)"


def _epsilon(epsilon: float | None) -> str:
    return "none" if epsilon is None else f"{epsilon:g}"
