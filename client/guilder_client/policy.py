"""What this institution permits: which studies, at which cost, with how many others.

`consider` answers an offer before anything is spent; `check` guards every turn. Both
read no row. A refusal names the rule and its line in site.toml.
"""

import logging
from typing import Any

from guilder_client import consent, terms
from guilder_client.rollback import demand_newest
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_shared import installed, recipes
from guilder_shared.errors import (
    BudgetSpent,
    GuilderError,
    IntegrityError,
    PolicyRefused,
)
from guilder_shared.messages import Answer, Offer, Plan, TurnRequest, Verdict
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Grant
from guilder_shared.study import Study

log = logging.getLogger(__name__)
MOST_WAITING = 100  # studies; those beyond are checked whole at each offer


def consider(site: Site, offer: Offer) -> Answer:
    """Answer an offer: a grant with the whole schedule reserved, or a refusal.

    A study that waits for a person's consent, or a site that is paused, answers
    `busy`: the server may ask again. Asking twice for the same run and study gives the
    same grant. No row is read.
    """
    try:
        study = Study.from_canonical(offer.study)
    except GuilderError as error:
        return _refused(site, error)
    try:
        grant = _accept(site, offer, study)
        # The weight of its replies; where sites are the units, each counts as one.
        weight = 1 if study.privacy.unit == "site" else site.public_size(study)
        answer = Answer(Verdict.ACCEPTED, site.name, grant.grant_id, public_size=weight)
    except GuilderError as error:
        answer = _refused(site, error)
    if site.offers is not None:
        site.offers.remember(offer, study, answer)
    return answer


def _accept(site: Site, offer: Offer, study: Study) -> Grant:
    """Check all that is to be checked, consent last, and reserve.

    While a study that was checked waits for a person, it is asked for consent first:
    the server asks again every second.
    """
    if site.pause is not None:
        site.pause.demand_none(site.name)
    site.hear_officer()
    checked = (study.digest(), offer.plan)
    if checked in site.waiting:
        consent.demand(site, study, _approved(site))
    site.waiting.discard(checked)
    demand_newest(site.ledger, site.settings.site.ledger_name, offer.witness)
    site.hear_witnesses(anew=True)
    permit(site.settings, study)
    if site.inbox is not None:
        terms.demand_signed(site.settings, site.ledger)
    demand_columns(site, study)
    public_size = site.public_size(study)
    demand_small_delta(site, study)
    accounting.confirm(study, offer.plan)
    _self_test(site, study, offer.plan, public_size)
    if len(site.waiting) < MOST_WAITING:
        site.waiting.add(checked)
    consent.demand(site, study, _approved(site))
    site.waiting.discard(checked)
    return _reserve(site, study, offer)


def _refused(site: Site, error: GuilderError) -> Answer:
    verdict = Verdict.REFUSED_BY_POLICY
    if isinstance(error, BudgetSpent):
        verdict = Verdict.REFUSED_BY_BUDGET
    elif error.error_id in consent.LATER:
        verdict = Verdict.BUSY
    return Answer(verdict, site.name, reason=error.brief())


def demand_columns(site: Site, study: Study) -> None:
    """Check columns by name and type, the person's too where a list applies.

    Raises:
        PolicyRefused: A list cannot be read (GLD-S040), or there is no such dataset.
        DataError: A column is missing or of another type; GLD-D040 the study names no
            person and a list needs one. No row was read.
    """
    site.hear_exclusions()
    source, contract = site.source(study.data.dataset), study.site_contract
    if site.exclusions is not None:
        site.exclusions.demand_person(site.name, study)
        if site.exclusions.of(study) is not None:
            contract = study.data
    source.check(contract)


def demand_small_delta(site: Site, study: Study) -> None:
    """Refuse a delta at which giving away whole units would keep the promise.

    A mechanism that publishes each unit with chance delta is (0, delta)-DP; among
    1 / delta units it publishes one.

    Raises:
        PolicyRefused: GLD-S032.
    """
    if study.privacy.mechanism != "none" and study.privacy.unit != "site":
        demand_smaller(study, site.public_size(study), site.name)


def demand_smaller(study: Study, public_size: int, name: str) -> None:
    """As `demand_small_delta`, of so many units."""
    privacy = study.privacy
    if privacy.delta * public_size < 1:
        return
    raise PolicyRefused(
        "GLD-S032",
        f"the study's delta {privacy.delta:g} is too large for the {public_size} "
        f"{privacy.unit}s of {study.data.dataset!r} at site {name!r}",
        why="One of 1 / delta units could be given away within the promise.",
        fix=f"privacy.delta at most {10.0 ** -len(str(public_size)):g}",
    )


def _self_test(site: Site, study: Study, plan: Plan, public_size: int) -> None:
    """Refuse a study whose promise this machine's code does not keep.

    What failed is for this site's log: the server hears that something did.

    Raises:
        PlanError: GLD-P070, GLD-P071.
    """
    if site.seed is not None:
        return  # a simulation tests once for all its sites
    from guilder_shared.training import selftest

    try:
        passed = selftest.ensure(study, plan, public_size=public_size)
    except GuilderError as error:
        log.error("study %s: %s", study.study.name, error)
        raise
    if passed is not None:
        log.info("study %s: self-test passed", study.study.name)


def permit(settings: SiteFile, study: Study) -> None:
    """Raise PolicyRefused unless site.toml's policy allows `study`.

    Whether people consented is `consent.demand`'s to say.
    """
    policy, name = settings.policy, settings.site.name
    where = "[policy] in site.toml"
    recipes.admit(settings.recipe, study.study.recipe, who=name)
    registry.ready(study)
    if study.study.recipe not in policy.recipes:
        raise PolicyRefused(
            "GLD-S001",
            f"site {name!r} does not allow the recipe {study.study.recipe!r}",
            fix=f"add it to recipes under {where}",
        )
    if study.privacy.mechanism == "none" and not policy.allow_unprotected:
        raise PolicyRefused(
            "GLD-S002",
            f"site {name!r} does not allow studies without privacy",
            fix=f"allow_unprotected under {where}; every report will say so",
        )
    if (
        study.privacy.mechanism != "none"
        and study.privacy.epsilon > policy.largest_epsilon
    ):
        raise PolicyRefused(
            "GLD-S003",
            f"the study wants epsilon {study.privacy.epsilon:g}; site {name!r} allows "
            f"at most {policy.largest_epsilon:g} a study",
            fix=f"lower privacy.epsilon, or change largest_epsilon under {where}",
        )
    if study.aggregation.min_sites < policy.smallest_cohort:
        raise PolicyRefused(
            "GLD-S005",
            f"the study may run with {study.aggregation.min_sites} sites; {name!r} "
            f"takes part from {policy.smallest_cohort} sites on",
            fix="raise aggregation.min_sites",
        )
    _demand_the_budgets_unit(settings, study)


def _approved(site: Site) -> set[str]:
    """Digests that approvals in force are about."""
    orders = [admitted.order for admitted in site.ledger.permissions()]
    return {str(o.content["study_digest"]) for o in orders if o.say == "approve"}


def _approved_once(site: Site, grant: Grant) -> set[str]:
    """The grant's digest if an approval made it, which may have expired since."""
    order = site.ledger.order(grant.approval)
    return {grant.study_digest} if order and order.say == "approve" else set()


def _demand_the_budgets_unit(settings: SiteFile, study: Study) -> None:
    """What is charged by record bounds no person, nor the reverse (decision 014)."""
    unit = study.privacy.unit
    for name, lines in settings.budget.items():
        concerned = study.data.dataset in lines.datasets
        if concerned and lines.unit is not None and lines.unit != unit:
            raise PolicyRefused(
                "GLD-S031",
                f"the study protects each {unit}; at site {settings.site.name!r} the "
                f"budget {name!r} is for studies that protect each {lines.unit}",
                fix=f'privacy.unit = "{lines.unit}", or change [budget.{name}]',
            )


def check(site: Site, request: TurnRequest) -> tuple[Grant, Study, Plan]:
    """The grant, study and plan of a turn that is really ours to take.

    Raises:
        PolicyRefused: No such grant here, it is closed, or it is for another study,
            run or server. Nothing was charged.
    """
    site.hear_officer()
    grant = site.ledger.find(request.grant_id)
    here = site.settings.site.ledger_name
    if grant is None or grant.closed or grant.server != here:
        raise PolicyRefused(
            "GLD-S007", f"site {site.name!r} holds no open grant for this turn"
        )
    if (grant.study_digest, grant.run_id) != (request.study_digest, request.run_id):
        raise PolicyRefused(
            "GLD-S008", f"the turn belongs to another study than {grant.study_digest}"
        )
    study = Study.from_canonical(str(grant.meta["study"]).encode())
    if study.digest() != grant.study_digest:
        raise IntegrityError("GLD-I031", "the stored study is not the accepted one")
    permit(site.settings, study)
    consent.demand(site, study, _approved_once(site, grant))
    if not study.training_rounds and request.round_no != study.measuring_round:
        raise PolicyRefused(
            "GLD-S008", "the study has no such round: it trains nothing"
        )
    site.hear_exclusions()
    if site.exclusions is not None:
        site.exclusions.demand_person(site.name, study)
    return grant, study, Plan(**grant.meta["plan"])


def _reserve(site: Site, study: Study, offer: Offer) -> Grant:
    plan = offer.plan
    event = accounting.turn_event(study, plan)
    return site.ledger.reserve(
        run_id=offer.run_id,
        server=site.settings.site.ledger_name,
        study_digest=study.digest(),
        study_name=study.study.name,
        dataset=study.data.dataset,
        recipe=study.study.recipe,
        unit=study.privacy.unit,
        cohort=study.aggregation.min_sites,
        study_epsilon=study.privacy.epsilon,
        study_delta=study.privacy.delta,
        turn_event=event,
        num_turns=plan.num_turns,
        evidence=accounting.evidence(event, plan.num_turns, study.privacy.delta),
        meta={
            "study": offer.study.decode(),
            "plan": plan.facts(),
            "mechanism": study.privacy.mechanism,
            "simulated": site.seed is not None,
            **_software(site, study),
        },
    )


def _software(site: Site, study: Study) -> dict[str, Any]:
    """What is installed here, and whose recipe it is; public, for the report."""
    if site.seed is not None:
        return {}
    name = study.study.recipe
    code = recipes.admit(site.settings.recipe, name, who=site.name)
    recipe = None if code is None else code.as_dict()
    return {"software": {"installed": installed.digest(), "recipe": recipe}}
