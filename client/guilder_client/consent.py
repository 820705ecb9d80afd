"""Consent: whether this site's people let a study run here, and what they decided.

Three may speak. The officer's approval of a digest, or a standing rule, is what the
ledger demands; `[policy] accept = "ask"` asks the engineer besides, unless the officer
approved this very digest; and anybody's refusal holds against all of them, at once and
in the middle of a study. This module reads no row and charges nothing.

Review, mathematics: none; decisions are about digests, which are public.
Review, crash order: decisions are durable files, read anew at every offer and turn.
"""

from collections.abc import Container, Iterable

from guilder_client.offers import ACCEPTED, REFUSED, Offered
from guilder_client.site import Site
from guilder_shared.errors import BudgetSpent, PolicyRefused
from guilder_shared.orders import Order
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.privacy.ledger.grants import asked_by
from guilder_shared.study import Study

WAITS = "GLD-S006"  # nobody has decided yet: the server may wait
NOT_APPROVED = "GLD-B010"
LATER = frozenset({WAITS, "GLD-S062"})  # refusals that time may end


def demand(site: Site, study: Study, approved: Container[str]) -> None:
    """Raise unless people here let just this study run.

    Args:
        site: Whose decisions count.
        study: Known by its digest alone.
        approved: Digests that the officer has approved one by one.

    Raises:
        PolicyRefused: GLD-S061 it was refused; GLD-S006 it waits for a decision.
    """
    digest, policy = study.digest(), site.settings.policy
    decision = "" if site.offers is None else site.offers.decision(digest)
    if decision == REFUSED:
        raise PolicyRefused(
            "GLD-S061",
            f"a person at site {site.name!r} refused this study, {digest}",
            fix="guilder client studies accept takes it back.",
        )
    accepted = decision == ACCEPTED or digest in policy.accepted or digest in approved
    if policy.accept == "ask" and not accepted:
        raise PolicyRefused(
            WAITS,
            f"at site {site.name!r} the study waits for a person's decision; this "
            f"one is {digest}",
            fix="guilder client studies show, then accept or refuse; or the officer: "
            "guilder privacy approve.",
        )


def demand_permission(
    ledger: Ledger, offered: Offered, waiting: Iterable[Order], officer: str
) -> None:
    """Raise unless an officer's order covers the study and there is room for it.

    Args:
        ledger: Of the site, for reading.
        offered: The study.
        waiting: Orders in the drop box. An approval among them is enough here: a
            running client takes it up before it answers the next offer, and only then
            is anything reserved.
        officer: Whose signature counts on those, 64 hexadecimal digits.

    Raises:
        BudgetSpent: As `Ledger.reserve`: GLD-B010 no order permits it, GLD-B003 no
            room, and others.
    """
    study = offered.read()
    event = accounting.turn_event(study, offered.plan)
    for grant in ledger.grants():
        if (grant.run_id, grant.study_digest) == (offered.run_id, offered.digest):
            return  # reserved already
    judged = ledger.would_accept(asked_by(study), event, offered.plan.num_turns)
    error: BudgetSpent | None = judged.error
    if error is None:
        return
    about = ("approve", ledger.site, offered.digest)
    if error.error_id == NOT_APPROVED and any(
        (order.say, order.site, order.content.get("study_digest")) == about
        and order.is_signed_by(officer)
        for order in waiting
    ):
        return
    raise error
