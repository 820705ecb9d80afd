"""What a study would take from this site's budgets, told before anybody decides.

Reads the ledger if there is one; writes nothing, asks no server and reads no row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from guilder_client.settings import SiteFile
from guilder_client.site import read_ledger
from guilder_shared.errors import GuilderError
from guilder_shared.messages import Plan
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger, Totals
from guilder_shared.privacy.ledger.grants import asked_by
from guilder_shared.study import Study


@dataclass(frozen=True)
class Share:
    """One budget, with and without the study; figures of its pure sum.

    Attributes:
        budget: Its name.
        lifetime: Epsilon over all studies, for ever.
        spent: Epsilon of studies that have spent a turn.
        reserved: Epsilon of studies accepted that have not.
        this: Epsilon of the study; 0 where it adds no noise.
        remaining: What would be left; below 0 where the sum has no room.
        period_left: What the current period releases yet; None: no period.
    """

    budget: str
    lifetime: float
    spent: float
    reserved: float
    this: float
    remaining: float
    period_left: float | None


@dataclass(frozen=True)
class Forecast:
    """What the ledger would say to a study now.

    Attributes:
        digest: Of the study.
        epsilon: Of the study; None where it is unprotected.
        delta: Of the study.
        plan: Its noise and turns.
        shares: Of the budgets that name its dataset.
        no_room: Why no budget takes it; empty if there is room.
        not_permitted: Why no order permits it; empty if one does.
    """

    digest: str
    epsilon: float | None
    delta: float
    plan: Plan
    shares: tuple[Share, ...]
    no_room: str
    not_permitted: str


def forecast(ledger: Ledger, study: Study) -> Forecast:
    """Look what a new run of `study` would take; about two seconds.

    Raises:
        PlanError: No noise keeps the study's promise (GLD-P001).
    """
    plan = accounting.solve(study)
    asked, event = asked_by(study), accounting.turn_event(study, plan)
    room = ledger.would_accept(asked, event, plan.num_turns, permitted=True).error
    answer = ledger.would_accept(asked, event, plan.num_turns).error
    takes = study.privacy.epsilon if asked.is_protected else 0.0
    return Forecast(
        digest=study.digest(),
        epsilon=study.privacy.epsilon if asked.is_protected else None,
        delta=study.privacy.delta,
        plan=plan,
        shares=tuple(
            _share(each, takes)
            for each in ledger.totals().values()
            if study.data.dataset in each.budget.datasets
        ),
        no_room="" if room is None else room.brief(),
        not_permitted="" if answer is None or room is not None else answer.brief(),
    )


def not_allowed(settings: SiteFile, study: Study) -> str:
    """Why this site refuses a study whatever its budgets; empty if it does not."""
    from guilder_client import policy

    mapped, privacy = settings.data.get(study.data.dataset), study.privacy
    try:
        policy.permit(settings, study)
        if mapped is None or privacy.mechanism == "none" or privacy.unit == "site":
            return ""
        persons = privacy.unit == "person"
        size = mapped.public_persons if persons else mapped.public_size
        policy.demand_smaller(study, size or 0, settings.site.name)
    except GuilderError as error:
        return f"{error.brief()}; {error.fix}"
    return ""


def lines(settings: SiteFile, study: Study) -> Iterator[str]:
    """The study and its forecast, line by line for people.

    Where there is no ledger (a copy of site.toml elsewhere) the forecast is left out.
    """
    privacy = study.privacy
    yield f"study {study.study.name!r}: {study.study.purpose}"
    yield f"digest {study.digest()}"
    yield (
        f"reads {study.data.dataset!r}, recipe {study.study.recipe}, from "
        f"{study.aggregation.min_sites} sites on"
    )
    plan = accounting.solve(study)
    if plan.noise_multiplier is None:
        yield "UNPROTECTED: it adds no noise; no epsilon says what it reveals"
    else:
        yield (
            f"takes epsilon {privacy.epsilon:g} at delta {privacy.delta:g} for each "
            f"{privacy.unit}, in {plan.num_turns} turns (spare ones included) with "
            f"noise multiplier {plan.noise_multiplier:.4g}"
        )
    yield from _figures(study)
    refused = not_allowed(settings, study)
    if refused:
        yield f"NOT ALLOWED HERE: {refused}"
    if not (settings.site.state_dir / "ledger.db").exists():
        yield "no ledger here: what is left of the budgets is known at the site"
        return
    try:
        with read_ledger(settings) as ledger:
            yield from _told(forecast(ledger, study))
    except GuilderError as error:
        yield f"the ledger cannot be read here: {error.brief()}"


def _figures(study: Study) -> Iterator[str]:
    """What is asked about rows, or measured on them, beside any training."""
    evaluation = study.evaluation
    if study.statistics is not None:
        asks = study.statistics.ask.items()
        told = ", ".join(
            f"{name} ({each.ask} of {getattr(each, 'column', 'rows')})"
            for name, each in asks
        )
        yield f"trains nothing; asks for {told}"
    if evaluation.share is not None:
        when = "the last model once"
        if evaluation.every is not None:
            when = f"the model every {evaluation.every} rounds"
        most = evaluation.share * study.privacy.epsilon
        yield (
            f"holds out {evaluation.rows:.0%} of the {study.privacy.unit}s, never "
            f"trained on, and measures {when} on them: each pays at most epsilon "
            f"{most:g} for it"
        )


def _told(found: Forecast) -> Iterator[str]:
    for share in found.shares:
        text = (
            f"budget {share.budget!r}: lifetime {share.lifetime:g}, spent "
            f"{share.spent:g}, reserved {share.reserved:g}, this study {share.this:g}, "
            f"remaining {share.remaining:g}"
        )
        if share.period_left is not None:
            text += f"; this period has {share.period_left:g} left"
        yield text
    if found.no_room:
        yield f"NO ROOM: {found.no_room}"
    elif any(share.remaining < 0 for share in found.shares):
        yield "there is room all the same: its Rényi cost fits (see docs/ledger.md)"
    if found.not_permitted:
        yield f"not permitted yet: {found.not_permitted}"


def _share(each: Totals, takes: float) -> Share:
    return Share(
        budget=each.budget.name,
        lifetime=each.budget.epsilon,
        spent=each.spent_epsilon,
        reserved=each.reserved_epsilon,
        this=takes,
        remaining=round(
            each.budget.epsilon - each.spent_epsilon - each.reserved_epsilon - takes, 12
        ),
        period_left=None if each.period is None else each.period.left_epsilon,
    )
