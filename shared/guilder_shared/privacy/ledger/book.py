"""Everything the entries of a ledger say, replayed one by one.

The same entries give the same book, on the site that wrote them and on the auditor's
computer. It writes nothing, decides nothing about new studies and knows no file, key
or clock; an entry that cannot follow those before it is refused. What each kind of
entry does is in the modules that `kinds.py` lists.

The mathematics: `accounts.py`. Crash order: the book learns an entry only after the
journal made it durable, so it never knows more than the disk.
"""

from typing import TYPE_CHECKING

from guilder_shared.chain import Entry
from guilder_shared.errors import IntegrityError
from guilder_shared.privacy.ledger import kinds
from guilder_shared.privacy.ledger.accounts import Accounts
from guilder_shared.privacy.ledger.bodies import (
    CANNOT_BE,
    ImpossibleError,
    demand,
    seconds,
)
from guilder_shared.privacy.ledger.budgets import Budget
from guilder_shared.privacy.ledger.decisions import Decisions
from guilder_shared.privacy.ledger.grants import Grant, Refusal
from guilder_shared.privacy.ledger.heads import Head

if TYPE_CHECKING:  # it writes, and so knows the book
    from guilder_shared.privacy.ledger.cohorts import Exclusion


class Book:
    """Everything the entries applied so far say.

    Attributes:
        seq: Of the last entry applied; 0 before the first.
        site: The site's name.
        public_hex: The key that signs the entries.
        time: Of the last entry applied; never runs backwards.
        accounts: Budgets and their sums.
        decisions: The officer's orders.
        grants: By id, oldest first.
        refusals: Oldest first.
        heads: Of the sealed turns, by server, in the order of their numbers.
        cohorts: Commitments to the rows that studies began with, by grant id.
        exclusions: The newest word on each dataset's list of excluded persons.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.site = ""
        self.public_hex = ""
        self.time = ""
        self.accounts = Accounts()
        self.decisions = Decisions()
        self.grants: dict[str, Grant] = {}
        self.refusals: list[Refusal] = []
        self.heads: dict[str, list[Head]] = {}
        self.cohorts: dict[str, str] = {}
        self.exclusions: dict[str, Exclusion] = {}
        self.by_run: dict[tuple[str, str, str], str] = {}  # grant ids

    def apply(self, entry: Entry) -> None:
        """Learn one entry.

        Raises:
            IntegrityError: It is not the next one, or says what cannot be after
                those before it, such as a turn beyond the plan (GLD-I007); or the
                ledger has an older format (GLD-I060) or a newer one (GLD-I061).
        """
        try:
            learn, body = kinds.LEARN.get(entry.kind), entry.content()
            if entry.seq != self.seq + 1 or learn is None:
                raise ImpossibleError
            demand((entry.seq == 1) == (entry.kind == "ledger"))
            time = str(body.get("time"))
            if entry.kind != "ledger":  # whose format is looked at first
                demand(seconds(time) >= 0 and time >= self.time)
            learn(self, entry, body)
            self.time = time
        except CANNOT_BE:
            raise IntegrityError(
                "GLD-I007",
                f"entry {entry.seq} ({entry.kind}) cannot follow the entries before it",
                why="It is signed, but no correct Guilder of this format wrote it.",
                fix="Check that this Guilder is not older than the ledger.",
            ) from None
        self.seq = entry.seq

    @property
    def budgets(self) -> dict[str, Budget]:
        """Those in force, by name."""
        return self.accounts.budgets

    def grants_of(self, budget: Budget) -> list[Grant]:
        """The grants that count against a budget, oldest first."""
        return self.accounts.grants_of(budget)

    def granted(self, server: str, run_id: str, study_digest: str) -> Grant | None:
        """The grant of this run, if it has one."""
        grant_id = self.by_run.get((server, run_id, study_digest))
        return None if grant_id is None else self.grants[grant_id]
