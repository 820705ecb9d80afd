"""What a site commits itself to about its rows: `cohort` and `exclude` entries.

A commitment is a salted hash of what only the site holds; no count, no fingerprint and
no id is in an entry. Whose rows they are and what is done with them is the client's.

The mathematics: a commitment with 128 secret random bits of salt tells nothing about
rows; that an entry is there tells that a study began, or that a list was edited. A
`cohort` entry has the time of the entry before it: it does not time the reading of
rows. Exclusion takes people out and gives no budget back.
Crash order: the site's own record is durable before its `cohort` entry, which is
durable before a result; an `exclude` entry before the next turn is charged.
"""

from collections.abc import Callable

from guilder_shared.chain import Entry
from guilder_shared.privacy.ledger.bodies import Body, demand, is_hex
from guilder_shared.privacy.ledger.pages import Exclusion, Pages


def _learn_cohort(book: Pages, _: Entry, body: Body) -> None:
    grant = book.grants[body["grant_id"]]
    demand(bool(grant.turns) and not grant.closed)
    demand(grant.grant_id not in book.cohorts and is_hex(body["commitment"], 64))
    book.cohorts[grant.grant_id] = str(body["commitment"])


def _learn_exclude(book: Pages, entry: Entry, body: Body) -> None:
    dataset, in_force = body["dataset"], body["in_force"]
    demand(isinstance(dataset, str) and dataset != "" and isinstance(in_force, bool))
    demand(is_hex(body["commitment"], 64))
    before = book.exclusions.get(dataset)
    demand(in_force or (before is not None and before.in_force))
    book.exclusions[dataset] = Exclusion(
        str(body["commitment"]), in_force, entry.seq, str(body["time"])
    )


LEARN: dict[str, Callable[[Pages, Entry, Body], None]] = {
    "cohort": _learn_cohort,
    "exclude": _learn_exclude,
}
