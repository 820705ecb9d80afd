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
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guilder_shared.chain import Entry
from guilder_shared.errors import IntegrityError
from guilder_shared.privacy.ledger.bodies import Body, demand, is_hex

if TYPE_CHECKING:
    from guilder_shared.privacy.ledger.book import Book
    from guilder_shared.privacy.ledger.pen import Pen


@dataclass(frozen=True)
class Exclusion:
    """The newest `exclude` entry of a dataset.

    Attributes:
        commitment: Of the list of persons, salted; hex.
        in_force: False where the site stopped applying the list.
        seq: Of the entry.
        time: Of the entry.
    """

    commitment: str
    in_force: bool
    seq: int
    time: str


def commit(pen: "Pen", grant_id: str, commitment: str) -> None:
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


def exclude(pen: "Pen", dataset: str, commitment: str, in_force: bool) -> None:
    """State that a list of persons applies, or no longer; see `Ledger.exclude`."""
    with pen.writing() as book:
        now = book.exclusions.get(dataset)
        if now is not None and (now.commitment, now.in_force) == (commitment, in_force):
            return
        body = {"dataset": dataset, "commitment": commitment, "in_force": in_force}
        pen.write("exclude", body)


def _learn_cohort(book: "Book", _: Entry, body: Body) -> None:
    grant = book.grants[body["grant_id"]]
    demand(bool(grant.turns) and not grant.closed)
    demand(grant.grant_id not in book.cohorts and is_hex(body["commitment"], 64))
    book.cohorts[grant.grant_id] = str(body["commitment"])


def _learn_exclude(book: "Book", entry: Entry, body: Body) -> None:
    dataset, in_force = body["dataset"], body["in_force"]
    demand(isinstance(dataset, str) and dataset != "" and isinstance(in_force, bool))
    demand(is_hex(body["commitment"], 64))
    before = book.exclusions.get(dataset)
    demand(in_force or (before is not None and before.in_force))
    book.exclusions[dataset] = Exclusion(
        str(body["commitment"]), in_force, entry.seq, str(body["time"])
    )


LEARN: "dict[str, Callable[[Book, Entry, Body], None]]" = {
    "cohort": _learn_cohort,
    "exclude": _learn_exclude,
}
