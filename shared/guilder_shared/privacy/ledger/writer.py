"""The ledger of one site: what each study has cost, and what it may still cost.

Entries describe mechanisms; epsilon is computed from them, never stored as truth.
This module knows no network, no model and no rows, and loads no torch.

The mathematics: a study is accepted if `filters.py` has room for everything charged
and reserved plus its whole schedule (spare turns included), in every budget that
names its dataset. Unit and adjacency are the study's (add/remove of one unit); the
event, the number of turns and every other number here are public.

Crash order: `reserve` is durable before a grant is answered, `spend` before the
first row is read, `seal` before a byte of the result is sent. Killed anywhere, the
ledger opens with every charge it ever answered for; a turn that was spent and not
sealed runs again under the same charge, and one result at most ever leaves.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from guilder_shared.chain import Entry
from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal
from guilder_shared.privacy.ledger import refusals
from guilder_shared.privacy.ledger.book import (
    FORMAT,
    NUM_REPEATS,
    Body,
    Book,
    Budget,
    Grant,
    Refusal,
    Spend,
    Turn,
    is_protected,
    read_budget,
    read_grant,
)
from guilder_shared.privacy.ledger.filters import MOST_RENYI, ORDERS, Cost
from guilder_shared.privacy.ledger.totals import Totals, totals

__all__ = ["Budget", "Grant", "Ledger", "Refusal", "Spend", "Totals", "Turn"]


class Ledger:
    """One site's ledger. Safe to use from several threads; one process writes."""

    def __init__(
        self, journal: Journal, key: SigningKey, clock: Callable[[], float]
    ) -> None:
        self._journal = journal
        self._key = key
        self._clock = clock
        self._lock = threading.RLock()
        self._book = Book()
        self._refused: set[bytes] = set()  # what was refused, so that it is said once

    @classmethod
    def open(
        cls,
        path: Path | None,
        key: SigningKey,
        *,
        site: str,
        budgets: Sequence[Budget],
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open a site's ledger for writing; make it if it is not there.

        Every entry is checked. Changed budgets are written as entries; one no longer
        listed is withdrawn, and what was charged to it stays counted.

        Args:
            path: The file; None keeps it in memory (a simulated site).
            key: The site's signing key.
            site: The site's name; a ledger belongs to one site.
            budgets: The budgets of `site.toml`.
            clock: Seconds since 1970, for people who read entries; never for order.

        Raises:
            IntegrityError: As `Journal.open`; or an entry is impossible
                (GLD-I007), or the ledger is another site's (GLD-I016).
        """
        ledger = cls(Journal.open(path, key), key, clock)
        try:
            ledger._learn()
            if ledger._journal.head is None:
                head = {"format": FORMAT, "site": site, "public_key": key.public_hex}
                ledger._write("ledger", head)
            if ledger.site != site:
                raise refusals.other_site(ledger.site, site)
            ledger._set_budgets(budgets)
        except BaseException:
            ledger.shut()
            raise
        return ledger

    @classmethod
    def read(cls, path: Path, key: SigningKey) -> Self:
        """Open for reading, beside a client that may be writing it.

        Args:
            path: The file.
            key: The site's signing key: checks the entries and signs reports.

        Raises:
            IntegrityError: As `Journal.read`, or an entry is impossible.
        """
        ledger = cls(Journal.read(path, key.public_hex), key, time.time)
        ledger._learn()
        return ledger

    @property
    def site(self) -> str:
        """The name of the site it belongs to."""
        return self._book.site

    def reserve(
        self,
        *,
        run_id: str,
        server: str,
        study_digest: str,
        study_name: str,
        dataset: str,
        study_epsilon: float,
        study_delta: float,
        turn_event: Body,
        num_turns: int,
        meta: Body,
        grant_id: str | None = None,
    ) -> Grant:
        """Set aside a study's whole schedule; durable when this returns.

        The same (server, run_id, study_digest) gives the same grant again and
        writes nothing. A study without privacy is written, marked unprotected,
        and takes nothing; whether to allow it is the policy's decision.

        Args:
            run_id: The server's name for the run.
            server: Who runs it.
            study_digest: SHA-256 of the study, hex.
            study_name: For people.
            dataset: Whose rows it will read.
            study_epsilon: Of all turns together; confirmed by the caller.
            study_delta: Of all turns together.
            turn_event: One turn's mechanism (`accounting.turn_event`).
            num_turns: Rounds and spare turns, 1 or more.
            meta: Public facts for the report; a JSON object.
            grant_id: Fixed by a simulation; otherwise 128 random bits.

        Raises:
            BudgetSpent: No budget names the dataset (GLD-B001), or one that does
                has no room (GLD-B003), both written once; or the numbers cannot
                be (GLD-B007).
            IntegrityError: The run was granted with another plan (GLD-I009), or
                the entry could not be made durable (GLD-I005).
        """
        body: Body = {
            "run_id": run_id,
            "server": server,
            "study_digest": study_digest,
            "study_name": study_name,
            "dataset": dataset,
            "epsilon": study_epsilon,
            "delta": study_delta,
            "turn_event": turn_event,
            "num_turns": num_turns,
            "protected": is_protected(turn_event),
        }
        with self._turn_of_writing():
            old = self._book.granted(server, run_id, study_digest)
            if old is not None:
                refusals.demand_same_plan(old, body)
                return old.snapshot()
            numbers = zip(ORDERS, _renyi(turn_event), strict=True)
            body["renyi"] = {str(order): number for order, number in numbers}
            body["meta"] = meta
            body["grant_id"] = grant_id or secrets.token_hex(16)
            grant = refusals.sound(read_grant, {**body, "time": ""})
            if grant.grant_id in self._book.grants:
                raise refusals.cannot_be("grant_id", grant.grant_id)
            if grant.is_protected:
                self._demand_room(body, grant.cost())
            self._write("reserve", body)
            return self._grant(str(body["grant_id"])).snapshot()

    def spend(self, grant_id: str, turn_no: int, request_hash: str) -> Spend:
        """Charge one turn; durable when this returns, before any row is read.

        Turn numbers only grow; one may be left out (the site never saw the request).

        Args:
            grant_id: From `reserve`.
            turn_no: From 1 to the grant's `num_turns`.
            request_hash: Of the whole request; the turn is bound to it.

        Returns:
            "new"; "sealed" if the turn has its result already; "again" if it was
            charged and not sealed: train it again, with fresh randomness.

        Raises:
            BudgetSpent: Unknown grant (GLD-B002), a number beyond the plan or
                older than the newest (GLD-B004), started too often (GLD-B005: the
                turn is given up), a closed grant (GLD-B006), or a new turn after
                the budget was lowered below what is granted (GLD-B008).
            IntegrityError: The turn was charged for another request (GLD-I008),
                or the entry could not be made durable (GLD-I005).
        """
        with self._turn_of_writing():
            grant = self._grant(grant_id)
            turn = grant.turns.get(turn_no)
            if turn is None:
                first = grant.newest_turn() + 1
                if not first <= turn_no <= grant.num_turns:
                    raise refusals.beyond_plan(self.site, grant, turn_no, first)
                if not self._book.covers(grant):
                    raise refusals.not_covered(self.site, grant)
            elif turn.request_hash != request_hash:
                raise refusals.other_request(grant, turn_no)
            elif turn.sealed_sha256 is not None:
                return Spend("sealed", turn.attempts, turn.sealed_sha256)
            if grant.closed:
                raise refusals.ended(self.site, grant)
            attempt = 1 if turn is None else turn.attempts + 1
            if turn is not None and (turn.given_up or attempt > 1 + NUM_REPEATS):
                self._give_up(grant, turn)
            charge = {"grant_id": grant_id, "turn_no": turn_no, "attempt": attempt}
            self._write("spend", {**charge, "request_hash": request_hash})
            return Spend("new" if attempt == 1 else "again", attempt)

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
        with self._turn_of_writing():
            turn = self._grant(grant_id).turns.get(turn_no)
            if turn is not None and turn.sealed_sha256 == sha256:
                return
            if turn is None or turn.given_up or turn.sealed_sha256 is not None:
                raise refusals.cannot_seal(turn_no)
            seal = {"grant_id": grant_id, "turn_no": turn_no, "sha256": sha256}
            self._write("seal", seal)

    def receipt(self, grant_id: str, turn_no: int, receipt: str) -> bool:
        """Keep the server's word that it has a turn's sealed bytes.

        Args:
            grant_id: From `reserve`.
            turn_no: Of a sealed turn.
            receipt: SHA-256 of the bytes the server committed, hex.

        Returns:
            True if the receipt stands in the ledger now, so that the sealed file
            may go; False if it is for other bytes or no sealed turn (ignored).
        """
        with self._turn_of_writing():
            turn = self._grant(grant_id).turns.get(turn_no)
            if turn is None or turn.sealed_sha256 != receipt:
                return False
            if turn.receipt is None:
                kept = {"grant_id": grant_id, "turn_no": turn_no, "receipt": receipt}
                self._write("receipt", kept)
            return True

    def close(self, grant_id: str) -> None:
        """End a study here and free what it did not spend. Twice is harmless.

        With a turn spent, the pure sum keeps the whole study (`Cost.of`).

        Raises:
            BudgetSpent: Unknown grant (GLD-B002).
            IntegrityError: It could not be written (GLD-I005).
        """
        with self._turn_of_writing():
            grant = self._grant(grant_id)
            if not grant.closed:
                closing = {"grant_id": grant_id, "num_spent": len(grant.turns)}
                self._write("close", closing)

    def find(self, grant_id: str) -> Grant | None:
        """The grant with this id, as it stands now; None if there is none."""
        with self._lock:
            grant = self._book.grants.get(grant_id)
            return None if grant is None else grant.snapshot()

    def grants(self) -> list[Grant]:
        """All grants, oldest first, as they stand now."""
        with self._lock:
            return [grant.snapshot() for grant in self._book.grants.values()]

    def totals(self) -> dict[str, Totals]:
        """Each budget's figures, by name."""
        with self._lock:
            return {name: totals(self._book, name) for name in self._book.budgets}

    def entries(self) -> list[Entry]:
        """All entries, oldest first."""
        return list(self._journal.entries())

    def sign(self, data: bytes) -> bytes:
        """Sign a report with the site's key; 64 bytes."""
        return self._key.sign(data)

    def shut(self) -> None:
        """Close the file, so that another process may write. Twice is harmless."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    @contextmanager
    def _turn_of_writing(self) -> Iterator[None]:
        with self._lock:
            self._learn()  # what an interrupted write left between disk and book
            yield

    def _learn(self) -> None:
        head = self._journal.head
        if head is None or head.seq == self._book.seq:
            return
        for entry in self._journal.entries(after=self._book.seq):
            self._book.apply(entry)
            if entry.kind == "refuse":
                self._refused.add(refusals.without_time(entry.content()))

    def _write(self, kind: str, body: Body) -> None:
        now = datetime.fromtimestamp(self._clock(), UTC)
        # whole seconds: reports carry them, and must not time the reading of rows
        stamp = now.isoformat(timespec="seconds").replace("+00:00", "Z")
        self._journal.append(kind, {**body, "time": stamp})
        self._learn()

    def _set_budgets(self, budgets: Sequence[Budget]) -> None:
        listed = {budget.name: budget for budget in budgets}
        for name in sorted(set(self._book.budgets) - set(listed)):
            self._write("withdraw", {"name": name})
        for name, budget in listed.items():
            if self._book.budgets.get(name) != budget:
                line = {**asdict(budget), "datasets": list(budget.datasets)}
                refusals.sound(read_budget, line)
                self._write("budget", line)

    def _demand_room(self, body: Body, cost: Cost) -> None:
        """Raise, and write the refusal, unless every budget concerned has room."""
        budgets = self._book.budgets_of(body["dataset"])
        for budget in budgets:
            total = self._book.charged(budget) + cost
            if not budget.filters.have_room(total):
                left = totals(self._book, budget.name)
                self._refuse(body, left)
                raise refusals.no_room(self.site, body, left)
        if not budgets:
            self._refuse(body, None)
            raise refusals.no_budget(self.site, body)

    def _refuse(self, body: Body, left: Totals | None) -> None:
        refusal = refusals.entry(body, left)
        if refusals.is_news(refusal, self._refused):
            self._write("refuse", refusal)

    def _grant(self, grant_id: str) -> Grant:
        grant = self._book.grants.get(grant_id)
        if grant is None:
            raise refusals.unknown_grant(self.site, grant_id)
        return grant

    def _give_up(self, grant: Grant, turn: Turn) -> None:
        if not turn.given_up:
            given_up = {"grant_id": grant.grant_id, "turn_no": turn.turn_no}
            self._write("give-up", given_up)
        raise refusals.given_up(grant, turn)


def _renyi(turn_event: Body) -> list[float]:
    if not is_protected(turn_event):
        return [0.0] * len(ORDERS)
    from guilder_shared.privacy import accounting

    return [min(r, MOST_RENYI) for r in accounting.renyi(turn_event, ORDERS)]
