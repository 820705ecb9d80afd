"""`guilder privacy plan | forecast`: what a study costs, before anybody approves it."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guilder_shared.messages import Plan
    from guilder_shared.privacy.planning import Outlook
    from guilder_shared.study import Study

StudyArgument = Annotated[Path, typer.Argument(help="The study file.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a line: privacy.epsilon=2. Repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def plan(
    study: StudyArgument,
    changes: SetOption = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", help="Also draw epsilon by turn.", metavar="SVG"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show STUDY's noise, its epsilon turn by turn, and what other schedules buy.

    Needs no site and no data; takes some seconds.
    """
    from guilder.plan_picture import draw
    from guilder_shared import durable
    from guilder_shared.privacy import planning
    from guilder_shared.study import Study

    asked = Study.load(study, changes or [])
    found = planning.outlook(asked)
    if picture is not None:
        svg = draw(found, asked.study.name, asked.privacy.unit)
        durable.write(picture, svg.encode())
    if as_json:
        facts = {"digest": asked.digest(), "unit": asked.privacy.unit, **asdict(found)}
        typer.echo(json.dumps(facts))
    else:
        measured = _measured(asked, found.plan)
        typer.echo(_text(found, asked.privacy.unit, measured))


def forecast(
    study: StudyArgument,
    site: Annotated[
        Path, typer.Option("--site", help="The site file.", metavar="SITE.TOML")
    ] = Path("site.toml"),
    changes: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what STUDY would take here: lifetime, spent, reserved, remaining.

    Writes nothing. Exit code 4 if it has no room, or the site does not allow it.
    """
    from guilder_client import forecasts
    from guilder_client.settings import SiteFile
    from guilder_client.site import read_ledger
    from guilder_shared.study import Study

    settings, asked = SiteFile.load(site), Study.load(study, changes or [])
    if not as_json:
        for line in forecasts.lines(settings, asked):
            typer.echo(line)
    with read_ledger(settings) as ledger:
        found = forecasts.forecast(ledger, asked)
    refused = forecasts.not_allowed(settings, asked)
    if as_json:
        typer.echo(json.dumps({**asdict(found), "not_allowed": refused}))
    if found.no_room or refused:
        raise typer.Exit(4)


def _measured(study: "Study", plan: "Plan") -> list[str]:
    """How noisy figures of units will be, where any are asked or measured."""
    if study.statistics is not None:
        return list(_answers(study, plan))
    if plan.measuring_noise is None or study.measuring_round is None:
        return []
    from guilder_shared.training import charged

    # the parts of all rounds since the last time, and the blocks share one vector
    blocks, every = len(charged.widths(study)), study.evaluation.every
    parts = every or study.measuring_round
    noise = plan.measuring_noise * math.sqrt(blocks / parts)
    when = "once, after the last round," if every is None else f"every {every} rounds,"
    return [
        f"metrics {when} on the {study.evaluation.rows:.0%} of "
        f"{study.privacy.unit}s that each site holds out:",
        f"noise of deviation {noise:.3g} on its count of right answers",
    ]


def _answers(study: "Study", plan: "Plan") -> "Iterator[str]":
    """The noise on each answer of one site, in the answer's own units."""
    from guilder_shared.study import ColumnData, NumberColumn
    from guilder_shared.study.asking import Mean

    assert study.statistics is not None
    assert isinstance(study.data, ColumnData)
    assert plan.noise_multiplier is not None
    noise, asks = study.statistics.noise, study.statistics.ask
    deviation = plan.noise_multiplier
    if noise == "gaussian":  # all questions share one vector
        deviation *= math.sqrt(len(asks))
    elif noise == "laplace":
        deviation *= math.sqrt(2)
    for name, each in asks.items():
        if not isinstance(each, Mean):
            yield f"{name}: noise of deviation {deviation:.3g} on each count of a site"
            continue
        column = study.data.columns[each.column]
        assert isinstance(column, NumberColumn)
        # a row adds at most sqrt(3) to count, sum and sum of squares together
        of_sum = deviation * math.sqrt(3) * (column.high - column.low) / 2
        yield (
            f"{name}: noise of deviation {of_sum:.3g} on the sum of a site, which is "
            f"divided by the number of {study.privacy.unit}s"
        )


def _many(num: int, word: str) -> str:
    return f"{num} {word}" if num == 1 else f"{num} {word}s"


def _text(found: "Outlook", unit: str, measured: list[str]) -> str:
    own = found.schedule
    whose = "site" if unit == "site" else f"{unit} of a site"
    lines = [
        f"epsilon {found.epsilon:.4g} at delta {found.delta:g} for each {whose}, over "
        f"{_many(found.plan.num_turns, 'turn')} (spare ones included)",
        f"noise multiplier {own.noise_multiplier:.4g} at sample rate "
        f"{own.sample_rate:g}, {_many(own.rounds, 'round')}",
        *measured,
        "",
        "turns    epsilon of the turns so far (for comparison, no guarantee)",
    ]
    widest = found.by_turn[-1][1]
    for turn_no, epsilon in found.by_turn:
        bar = "█" * max(1, round(40 * epsilon / widest))
        lines.append(f"{turn_no:5}    {epsilon:6.3f}  {bar}")
    if not found.others:
        return "\n".join(lines)
    lines += ["", "the same promise with   rounds   rate     noise   noise/signal"]
    for each in (own, *found.others):
        mark = "this study" if each is own else ""
        lines.append(
            f"{mark:22}  {each.rounds:6}   {each.sample_rate:<7.3g}"
            f"{each.noise_multiplier:7.3f}   {each.relative_noise:.2f}"
        )
    return "\n".join(lines)
