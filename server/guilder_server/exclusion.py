"""Which sites are out of a run because of what they sent, and for how long.

The rule: a site whose reply or update fails a check is out for the rest of the run. It
is named with the id of the check; nothing of that reply is added, and the others go on
as long as `min_sites` of them are left. A refusal by policy or budget is no fault and
ends the run (decision 004). This module judges no message.

Crash order: an exclusion is durable before the round goes on, so that a server killed
after it folds the same replies with the same weights.
"""

from typing import Final

from guilder_server.cohort import Cohort, Member
from guilder_server.runstore import RunStore
from guilder_shared.errors import IntegrityError

EXCLUDED: Final = "site-excluded"


def names(store: RunStore) -> set[str]:
    """The sites that are out of this run."""
    return {str(e["site"]) for e in store.events() if e["kind"] == EXCLUDED}


def sizes(store: RunStore, round_no: int) -> dict[str, int]:
    """Public sizes of those that this round began with and excluded, by name."""
    return {
        str(event["site"]): int(event["public_size"])
        for event in store.events()
        if event["kind"] == EXCLUDED and event["round"] == round_no
    }


def exclude(
    store: RunStore,
    cohort: Cohort,
    member: Member,
    round_no: int,
    error: IntegrityError,
) -> None:
    """Take a member out of the run and say why; durable when this returns.

    Raises:
        IntegrityError: `error` itself, if too few sites would be left.
    """
    store.event(
        EXCLUDED,
        site=member.site,
        round=round_no,
        id=error.error_id,
        what=error.what,
        public_size=member.public_size,
    )
    cohort.exclude(member.site)
    left, quorum = len(cohort.members), cohort.study.aggregation.min_sites
    if left < quorum:
        raise IntegrityError(
            error.error_id,
            f"{error.what} {left} of at least {quorum} sites are left.",
            why=error.why,
            fix=error.fix,
        )
