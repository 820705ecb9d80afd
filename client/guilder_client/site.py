"""One institution: its name, its settings, its ledger, its sealed turns, its data.

Knows no network. Two things differ between a deployed and a simulated site, and both
are fields here: where randomness comes from, and whether replies are held to a clock.
"""

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

from guilder_client import terms
from guilder_client.cohorts import Cohorts
from guilder_client.data.source import LeaveOut
from guilder_client.exclusions import Exclusions
from guilder_client.inbox import Inbox
from guilder_client.offers import Offers
from guilder_client.pause import Pause
from guilder_client.sealed import SealedTurns
from guilder_client.settings import SiteFile
from guilder_client.witnesses import Witnesses
from guilder_shared.errors import BudgetSpent, PolicyRefused
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Plan
from guilder_shared.models import features
from guilder_shared.officer import read_public_key
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Data, Study
from guilder_shared.tasks import Examples
from guilder_shared.training import device, held_out
from guilder_shared.training.held_out import Parts

log = logging.getLogger(__name__)
Mark = tuple[str, str, tuple[int, ...]]  # dataset, its list, its file


class Source(Protocol):
    """A dataset of this site: public facts, a check without rows, and the rows."""

    @property
    def public_size(self) -> int:
        """Rows as all may know it: typed and agreed, never counted."""

    @property
    def public_persons(self) -> int | None:
        """Persons as all may know it, typed like `public_size`; None if not typed."""

    def check(self, data: Data) -> None:
        """Raise DataError if the columns do not fit the contract; reads no row."""

    def read(self, data: Data, leave_out: LeaveOut | None = None) -> Examples:
        """All rows but those to leave out, encoded; called after the charge only."""


@dataclass
class Site:
    """One institution, open for work.

    Attributes:
        seed: Keys sampling and noise in a simulation; None in a deployment, where
            randomness comes from the operating system alone.
        paced: Replies wait for the study's reply quantum, and a failed turn for the
            round's deadline; False in a simulation.
        inbox: Where the officer's orders arrive; None in a simulation.
        exclusions: Persons whose rows are left out; None in a simulation.
        cohorts: Which rows studies began with; None in a simulation.
        offers: What was offered and decided; None in a simulation.
        pause: Whether replies are held back; None in a simulation.
        waiting: Studies, by digest and plan, that lack a person's consent alone.
        witnesses: Other servers that may know the ledger better; None in a simulation.
    """

    name: str
    settings: SiteFile
    ledger: Ledger
    sealed: SealedTurns
    sources: Mapping[str, Source]
    seed: int | None = None
    paced: bool = True
    inbox: Inbox | None = None
    exclusions: Exclusions | None = None
    cohorts: Cohorts | None = None
    offers: Offers | None = None
    pause: Pause | None = None
    witnesses: Witnesses | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: set[tuple[str, Plan]] = field(default_factory=set)
    _rows: dict[str, tuple[Mark, Parts]] = field(default_factory=dict)

    @classmethod
    def open(cls, settings: SiteFile) -> Self:
        """The deployed site that `settings` (site.toml) describes.

        Raises:
            IntegrityError: The ledger was changed. EnrolmentError: a key is missing.
            BudgetSpent: The officer has not signed what site.toml says (GLD-B020),
                or another officer decides here (GLD-B017).
            DeviceError: GLD-G002 the device that is asked for is not here.
        """
        from guilder_client.data.source import open_source

        device.settle(settings.speed)
        state = settings.site.state_dir
        key = SigningKey.load(settings.keys.signing_key)
        inbox = Inbox(state / "orders")
        ledger = Ledger.open(
            state / "ledger.db",
            key,
            site=settings.site.name,
            officer=read_public_key(settings.keys.officer),
            orders=inbox.new(),
        )
        try:
            terms.demand_signed(settings, ledger)
            sources = {name: open_source(d) for name, d in settings.data.items()}
        except BaseException:
            ledger.shut()
            raise
        return cls(
            name=settings.site.name,
            settings=settings,
            ledger=ledger,
            sealed=SealedTurns(state / "turns"),
            sources=sources,
            inbox=inbox,
            exclusions=Exclusions(settings.data, state / "cohorts"),
            cohorts=Cohorts(state / "cohorts"),
            offers=Offers(state / "studies"),
            pause=Pause(state),
            witnesses=Witnesses(settings),
        )

    def hear_officer(self) -> None:
        """Admit the orders that arrived since; what is refused is told in the log."""
        for order in self.inbox.new() if self.inbox else ():
            try:
                self.ledger.admit(order)
            except BudgetSpent as error:
                log.error("order left out: %s", error)

    @property
    def holds(self) -> bool:
        """Whether nothing computed from rows may leave now: paused, and at once."""
        return self.pause is not None and self.pause.holds()

    def hear_witnesses(self, *, anew: bool = False) -> None:
        """Ask the other servers that may know the ledger better; see `witnesses.py`.

        Raises:
            PolicyRefused, IntegrityError: As `Witnesses.demand_heard`.
        """
        if self.witnesses is not None:
            self.witnesses.demand_heard(self.ledger, anew=anew)

    def hear_exclusions(self) -> None:
        """Apply the lists of excluded persons as they stand now.

        Rows in memory that another list had been applied to are dropped.

        Raises:
            PolicyRefused: A list cannot be read (GLD-S040).
        """
        if self.exclusions is None:
            return
        self.exclusions.settle(self.name, self.ledger)
        for grant_id, ((dataset, listed, _), _rows) in list(self._rows.items()):
            if self.exclusions.mark(dataset) != listed:
                self.forget(grant_id)

    def source(self, dataset: str) -> Source:
        """The source mapped to `dataset`; PolicyRefused if there is none."""
        if dataset not in self.sources:
            raise PolicyRefused(
                "GLD-S004",
                f"site {self.name!r} maps no data to the dataset {dataset!r}",
                fix=f"add [data.{dataset}] to site.toml",
            )
        return self.sources[dataset]

    def public_size(self, study: Study) -> int:
        """How much a study finds here, as all may know it: persons or rows, typed.

        Raises:
            PolicyRefused: GLD-S004 no such dataset; GLD-S030 the study protects
                persons and nobody has typed how many there are.
        """
        source = self.source(study.data.dataset)
        if study.privacy.unit != "person":
            return source.public_size
        if source.public_persons is None:
            raise PolicyRefused(
                "GLD-S030",
                f"site {self.name!r} names no public number of persons for the "
                f"dataset {study.data.dataset!r}; the study protects persons",
                fix=f"public_persons under [data.{study.data.dataset}] in site.toml",
            )
        return source.public_persons

    def read(self, grant_id: str, study: Study) -> Parts:
        """The rows for one grant; kept in memory until they change or it is closed.

        Where the study trains a head alone these are the frozen body's features,
        computed once. Where it measures on the site's rows, a share of the units is
        held out, by a hash that nobody knew before the grant was made.

        Raises:
            DataError: The file is gone or has other columns; or rows changed in
                mid-study and the policy does not go on (GLD-D043, GLD-D044).
        """
        dataset = study.data.dataset
        mark = (dataset, self._list(dataset), self._file(dataset))
        kept = self._rows.get(grant_id)
        if kept is not None and kept[0] == mark:
            return kept[1]
        self.forget(grant_id)
        leave_out = self.exclusions.of(study) if self.exclusions else None
        source, contract = self.source(dataset), study.site_contract
        rows = (
            source.read(contract)
            if leave_out is None
            else source.read(contract, leave_out)
        )
        if self.cohorts is not None:
            self.cohorts.settle(self, grant_id, study, rows)
        secret = grant_id if self.seed is None else f"{self.seed} {self.name}"
        parts = held_out.split(rows, study, secret)
        parts = parts.each(lambda some: features.prepare(some, study))
        self._rows[grant_id] = (mark, parts)
        return parts

    def forget(self, grant_id: str) -> None:
        """Drop a grant's rows from memory."""
        self._rows.pop(grant_id, None)

    def _list(self, dataset: str) -> str:
        return self.exclusions.mark(dataset) if self.exclusions else ""

    def _file(self, dataset: str) -> tuple[int, ...]:
        """What tells that a file was written anew; looks at no row."""
        if self.cohorts is None:
            return ()
        try:
            found = os.stat(self.settings.data[dataset].path)
        except OSError:
            return ()
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def read_ledger(settings: SiteFile) -> Ledger:
    """The site's ledger for reading, beside a client that may be running."""
    key = SigningKey.load(settings.keys.signing_key)
    return Ledger.read(settings.site.state_dir / "ledger.db", key)
