"""What the entries of a ledger have said so far: the state that replaying builds up.

Data and look-ups only: `replay.py`, `opening.py` and `cohorts.py` fill it entry by
entry, `book.py` calls them. It writes nothing and decides nothing.

The mathematics: `accounts.py`. Crash order: reads only.
"""

from dataclasses import dataclass

from guilder_shared.privacy.ledger.accounts import Accounts
from guilder_shared.privacy.ledger.budgets import Budget
from guilder_shared.privacy.ledger.decisions import Decisions
from guilder_shared.privacy.ledger.grants import Grant, Refusal
from guilder_shared.privacy.ledger.heads import Forgot, Head, Word


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


class Pages:
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
        words: What each server signed last about a head, by server.
        forgot: When a server remembered less than it had signed for, oldest first.
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
        self.words: dict[str, Word] = {}
        self.forgot: list[Forgot] = []
        self.cohorts: dict[str, str] = {}
        self.exclusions: dict[str, Exclusion] = {}
        self.by_run: dict[tuple[str, str, str], str] = {}  # grant ids

    @property
    def budgets(self) -> dict[str, Budget]:
        """Those in force, by name."""
        return self.accounts.budgets

    def grants_of(self, budget: Budget) -> list[Grant]:
        """The grants that count against a budget, oldest first."""
        return self.accounts.grants_of(budget)

    def has_forgotten(self, server: str, head_no: int) -> bool:
        """Whether it is stated already that a server forgot this head."""
        return any((f.server, f.head_no) == (server, head_no) for f in self.forgot)

    def granted(self, server: str, run_id: str, study_digest: str) -> Grant | None:
        """The grant of this run, if it has one."""
        grant_id = self.by_run.get((server, run_id, study_digest))
        return None if grant_id is None else self.grants[grant_id]
