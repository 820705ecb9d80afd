"""The ledger that others hold: opened, asked and written through one class.

Entries describe mechanisms; epsilon is computed from them, never stored as truth.
What is decided is in `acceptance.py` and `turns.py`; this module keeps the contract of
what writes, `readings.py` that of what does not.

The mathematics: `acceptance.py`, `filters.py`.
Crash order: an order is durable before it permits anything, `reserve` before a grant
is answered, `spend` before the first row is read, `seal` before a byte of the result
is sent. Killed anywhere, the ledger opens with every charge it ever answered for; a
turn that was spent and not sealed runs again under the same charge, and one result at
most ever leaves.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Self

from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal
from guilder_shared.orders import Order
from guilder_shared.privacy.ledger import (
    acceptance,
    commitments,
    refusals,
    turns,
    witnesses,
)
from guilder_shared.privacy.ledger.acceptance import Judged
from guilder_shared.privacy.ledger.bodies import FORMAT, Body
from guilder_shared.privacy.ledger.grants import Asked, Grant, Spend
from guilder_shared.privacy.ledger.pen import Pen
from guilder_shared.privacy.ledger.readings import Readings

log = logging.getLogger(__name__)


class Ledger(Readings):
    """One site's ledger. Safe to use from several threads; one process writes."""

    @classmethod
    def open(
        cls,
        path: Path | None,
        key: SigningKey,
        *,
        site: str,
        officer: str,
        orders: Iterable[Order] = (),
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open a site's ledger for writing; make it if it is not there.

        Every entry is checked. Orders that the ledger does not hold yet become
        entries; those it must refuse are told in the log and left out.

        Args:
            path: The file; None keeps it in memory (a simulated site).
            key: The site's signing key.
            site: The site's name; a ledger belongs to one site.
            officer: Public key of the data-protection officer, hexadecimal. A new
                ledger keeps it; it changes only by an order signed with the old key.
            orders: The officer's, in any order.
            clock: Seconds since 1970; makes orders expire and periods begin. Set
                back, it is ignored until it has caught up.

        Raises:
            IntegrityError: As `Journal.open`; or an entry is impossible
                (GLD-I007), the ledger has another format (GLD-I060, GLD-I061) or is
                another site's (GLD-I016).
            BudgetSpent: The ledger's officer has another key (GLD-B017).
        """
        pen = Pen(Journal.open(path, key), key, clock)
        try:
            pen.learn()
            if pen.journal.head is None:
                public = {"public_key": key.public_hex, "officer": officer}
                pen.write("ledger", {"format": FORMAT, "site": site, **public})
            if pen.book.site != site:
                raise refusals.other_site(pen.book.site, site)
            for error in acceptance.admit_all(pen, orders):
                log.error("order left out: %s", error)
            if pen.book.decisions.officer != officer:
                raise refusals.other_officer(pen.book.decisions.officer, officer)
        except BaseException:
            pen.journal.close()
            raise
        return cls(pen)

    @classmethod
    def read(cls, path: Path, key: SigningKey) -> Self:
        """Open for reading, beside a client that may be writing it.

        Args:
            path: The file.
            key: The site's signing key: checks the entries and signs reports.

        Raises:
            IntegrityError: As `Journal.read`, or an entry is impossible.
        """
        pen = Pen(Journal.read(path, key.public_hex), key, time.time)
        pen.learn()
        return cls(pen)

    def admit(self, order: Order) -> bool:
        """Write an officer's order; durable when this returns.

        Returns:
            False if the ledger holds it already: nothing was written.

        Raises:
            BudgetSpent: It is another site's (GLD-B018), not signed by the officer
                (GLD-B013), older than one on its subject (GLD-B015), or its numbers
                cannot be (GLD-B007). Nothing was written.
            IntegrityError: It could not be made durable (GLD-I005).
        """
        return acceptance.admit(self._pen, order)

    def reserve(
        self,
        *,
        run_id: str,
        server: str,
        study_digest: str,
        study_name: str,
        dataset: str,
        recipe: str,
        unit: str,
        cohort: int,
        study_epsilon: float,
        study_delta: float,
        turn_event: Body,
        num_turns: int,
        meta: Body,
        grant_id: str | None = None,
        evidence: Body | None = None,
    ) -> Grant:
        """Set aside a study's whole schedule; durable when this returns.

        The same (server, run_id, study_digest) gives the same grant again and
        writes nothing. A study without privacy is written, marked unprotected, and
        takes nothing; it needs an order like any other.

        Args:
            run_id: The server's name for the run.
            server: Who runs it.
            study_digest: SHA-256 of the study, hex.
            study_name: For people.
            dataset: Whose rows it will read.
            recipe: What it does with them.
            unit: Whom it protects: "record", "person" or "site".
            cohort: Fewest sites it may run with.
            study_epsilon: Of all turns together; confirmed by the caller.
            study_delta: Of all turns together.
            turn_event: One turn's mechanism (`accounting.turn_event`).
            num_turns: Rounds and spare turns, 1 or more.
            meta: Public facts for the report; a JSON object.
            grant_id: Fixed by a simulation; otherwise 128 random bits.
            evidence: What other accountants say (`accounting.evidence`).

        Raises:
            BudgetSpent: No order permits it (GLD-B010) or it is revoked (GLD-B012)
                or expired (GLD-B011); no budget names the dataset (GLD-B001), one
                that does is for another unit (GLD-B019), has no room (GLD-B003) or
                none in this period (GLD-B016); all written once. Or the numbers
                cannot be (GLD-B007).
            IntegrityError: The run was granted with another plan (GLD-I009), or
                the entry could not be made durable (GLD-I005).
        """
        body: Body = {
            "run_id": run_id,
            "server": server,
            "study_digest": study_digest,
            "study_name": study_name,
            "dataset": dataset,
            "recipe": recipe,
            "unit": unit,
            "cohort": cohort,
            "epsilon": study_epsilon,
            "delta": study_delta,
            "turn_event": turn_event,
            "num_turns": num_turns,
        }
        if evidence is not None:
            body["evidence"] = evidence
        return acceptance.reserve(self._pen, body, meta=meta, grant_id=grant_id)

    def would_accept(
        self, asked: Asked, turn_event: Body, num_turns: int, *, permitted: bool = False
    ) -> Judged:
        """What `reserve` would answer a new run of a study now; writes nothing.

        Args:
            asked: What the study asks.
            turn_event: One turn's mechanism.
            num_turns: Rounds and spare turns.
            permitted: As if the officer permitted it: whether there is room.

        Raises:
            BudgetSpent: The numbers cannot be (GLD-B007).
        """
        body: Body = {
            "run_id": "",
            "server": "",
            "study_name": asked.study_digest[:16],
            **asdict(asked),
            "turn_event": turn_event,
            "num_turns": num_turns,
        }
        return acceptance.would(self._pen, body, permitted=permitted)

    def spend(
        self, grant_id: str, turn_no: int, request_hash: str, *, measures: bool = False
    ) -> Spend:
        """Charge one turn; durable when this returns, before any row is read.

        Turn numbers only grow; one may be left out (the site never saw the request).

        Args:
            grant_id: From `reserve`.
            turn_no: From 1 to the grant's `num_turns`.
            request_hash: Of the whole request; the turn is bound to it.
            measures: Whether it releases charged metrics (`Grant.unmeasured`).

        Returns:
            "new"; "sealed" if the turn has its result already; "again" if it was
            charged and not sealed: train it again, with fresh randomness.

        Raises:
            BudgetSpent: Unknown grant (GLD-B002), a number beyond the plan or
                older than the newest (GLD-B004), started too often (GLD-B005: the
                turn is given up), a closed grant (GLD-B006), or a new turn after
                the officer revoked the study (GLD-B012) or lowered the budget below
                what is granted (GLD-B008).
            IntegrityError: The turn was charged for another request (GLD-I008),
                or the entry could not be made durable (GLD-I005).
        """
        asked = (grant_id, turn_no, request_hash)
        return turns.spend(self._pen, *asked, measures=measures)

    def seal(self, grant_id: str, turn_no: int, sha256: str) -> None:
        """Bind a charged turn to the one result that may leave; durable.

        Sealing the same bytes again is harmless.

        Args:
            grant_id: From `reserve`.
            turn_no: A turn that was spent.
            sha256: Of the sealed file, which is durable already; hex.

        Raises:
            BudgetSpent: Unknown grant (GLD-B002).
            IntegrityError: The turn was not spent, was given up, or was sealed
                with other bytes (GLD-I010); or it could not be written (GLD-I005).
        """
        turns.seal(self._pen, grant_id, turn_no, sha256)

    def receipt(
        self, grant_id: str, turn_no: int, receipt: str, witness: Body | None = None
    ) -> bool:
        """Keep the server's word that it has a turn's sealed bytes.

        Args:
            grant_id: From `reserve`.
            turn_no: Of a sealed turn.
            receipt: SHA-256 of the bytes the server committed, hex.
            witness: What the server signed about this site's newest entry, if it
                witnesses: {"server_key", "head_no", "commitment",
                "signature"}.

        Returns:
            True if the receipt stands in the ledger now, so that the sealed file
            may go; False if it is for other bytes or no sealed turn (ignored).
        """
        return turns.receipt(self._pen, grant_id, turn_no, receipt, witness)

    def close(self, grant_id: str) -> None:
        """End a study here and free what it did not spend. Twice is harmless.

        With a turn spent, the pure sum keeps the whole study (`Cost.of`).

        Raises:
            BudgetSpent: Unknown grant (GLD-B002).
            IntegrityError: It could not be written (GLD-I005).
        """
        turns.close(self._pen, grant_id)

    def cohort(self, grant_id: str, commitment: str) -> None:
        """Bind a grant, at its first turn, to the rows it found; durable, once.

        Args:
            grant_id: Of a grant with a turn spent.
            commitment: `cohorts` says what of; 64 hex digits, from a salted hash.

        Raises:
            BudgetSpent: Unknown grant (GLD-B002).
            IntegrityError: It is bound otherwise (GLD-I010), or not durable (GLD-I005).
        """
        commitments.commit(self._pen, grant_id, commitment)

    def exclude(self, dataset: str, commitment: str, *, in_force: bool) -> None:
        """State that a list of persons is left out of a dataset, or no longer.

        Frees nothing of any budget. What the ledger says already is not repeated.

        Raises:
            IntegrityError: It could not be made durable (GLD-I005).
        """
        commitments.exclude(self._pen, dataset, commitment, in_force)

    def forgot(self, server: str, remembers: int) -> bool:
        """State that a server remembers less than it signed for; durable.

        Stated once for each head that the server signed for, so that one which says so
        in every message does not fill the ledger. Frees nothing and charges nothing.

        Args:
            server: Its name in the ledger.
            remembers: The number of the newest head that it knows; 0: none.

        Returns:
            True if it was new.

        Raises:
            IntegrityError: It could not be made durable (GLD-I005).
        """
        return witnesses.forgot(self._pen, server, remembers)

    def shut(self) -> None:
        """Close the file, so that another process may write. Twice is harmless."""
        self._pen.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()
