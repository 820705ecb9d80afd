"""Writing what a site commits itself to about its rows, once each.

What `cohort` and `exclude` entries mean, and the review of both, is in `cohorts.py`;
whose rows they are and what is done with them is the client's.

The mathematics, and the crash order: `cohorts.py`.
"""

from guilder_shared.errors import IntegrityError
from guilder_shared.privacy.ledger.bodies import Body
from guilder_shared.privacy.ledger.pen import Pen


def commit(pen: Pen, grant_id: str, commitment: str) -> None:
    """Bind a grant to the rows it began with; see `Ledger.cohort`."""
    with pen.writing() as book:
        pen.grant(grant_id)
        found = book.cohorts.get(grant_id)
        if found == commitment:
            return
        if found is not None:
            raise IntegrityError(
                "GLD-I010",
                "the study's cohort is committed already, and not to these rows",
                fix="Restore state_dir/cohorts from a backup of the same day.",
            )
        body: Body = {"grant_id": grant_id, "commitment": commitment}
        pen.write("cohort", body, time=book.time)


def exclude(pen: Pen, dataset: str, commitment: str, in_force: bool) -> None:
    """State that a list of persons applies, or no longer; see `Ledger.exclude`."""
    with pen.writing() as book:
        now = book.exclusions.get(dataset)
        if now is not None and (now.commitment, now.in_force) == (commitment, in_force):
            return
        body = {"dataset": dataset, "commitment": commitment, "in_force": in_force}
        pen.write("exclude", body)
