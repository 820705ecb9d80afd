"""What the entries of a ledger say: grants, turns, budgets and what they cost.

A pure replay: the same entries give the same book, on the site that wrote them and
on the auditor's computer. It writes nothing, decides nothing about new studies and
knows no file, key or clock; an entry that cannot follow those before it is refused.

The mathematics: `filters.py`. Crash order: the book learns an entry only after the
journal made it durable, so it never knows more than the disk.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from guilder_shared.chain import Entry
from guilder_shared.errors import IntegrityError, PlanError
from guilder_shared.privacy import events
from guilder_shared.privacy.ledger.filters import NOTHING, ORDERS, Cost, Filters

Body = dict[str, Any]
FORMAT = 1  # of the entries' bodies, as docs/ledger.md describes them
NUM_REPEATS = 3  # times a turn that was spent and not sealed may run again


@dataclass(frozen=True)
class Budget:
    """What the officer lets all studies together take from some datasets.

    Attributes:
        name: Of the people protected, say "cardholders".
        epsilon: Over all studies, for ever; add/remove of one unit.
        delta: Over all studies; a study's own delta must fit in half of it.
        datasets: Names of the datasets that hold these people.
    """

    name: str
    epsilon: float
    delta: float
    datasets: tuple[str, ...]

    @property
    def filters(self) -> Filters:
        """The filters this budget fixes."""
        return Filters.fix(self.epsilon, self.delta)


@dataclass(frozen=True)
class Turn:
    """One turn that was charged.

    Attributes:
        turn_no: From 1.
        request_hash: Of the whole request; the turn is bound to it.
        attempts: How often it was started: 1, and one more for each repeat.
        spent_at: Time of the first charge, from its entry.
        sealed_sha256: Of the one result that may leave; None until it is sealed.
        sealed_at: Time of the seal.
        receipt: What the server answered; None until it did.
        given_up: Started too often without a seal; nothing of it ever leaves.
    """

    turn_no: int
    request_hash: str
    attempts: int
    spent_at: str
    sealed_sha256: str | None = None
    sealed_at: str | None = None
    receipt: str | None = None
    given_up: bool = False


@dataclass(frozen=True)
class Grant:
    """What one run of one study may spend at this site.

    Attributes:
        grant_id: 32 hexadecimal digits, minted by the site.
        run_id: The server's name for the run.
        server: Who runs it.
        study_digest: SHA-256 of the study, what the site accepted.
        study_name: For people.
        dataset: Whose rows it reads.
        epsilon: Of all `num_turns` turns together.
        delta: Of all turns together.
        turn_event: The mechanism of one turn, as data.
        num_turns: How many turns may be spent.
        num_steps: Noised sums in one turn; 0 where it is unprotected.
        renyi: Rényi divergence of one turn at `filters.ORDERS`, in nats.
        is_protected: False where the turn's event has no noise at all.
        meta: Public facts: the study whole, the plan, whether it is simulated.
        reserved_at: Time, from its entry.
        closed: The study ended; no turn can be spent any more.
        turns: Those charged, by number, in order.
    """

    grant_id: str
    run_id: str
    server: str
    study_digest: str
    study_name: str
    dataset: str
    epsilon: float
    delta: float
    turn_event: Body
    num_turns: int
    num_steps: int
    renyi: tuple[float, ...]
    is_protected: bool
    meta: Body
    reserved_at: str
    closed: bool = False
    turns: dict[int, Turn] = field(default_factory=dict)

    def snapshot(self) -> "Grant":
        """A copy that later entries do not change."""
        return replace(self, turns=dict(self.turns))

    def newest_turn(self) -> int:
        """The highest turn number charged so far; 0 if there is none."""
        return next(reversed(self.turns), 0)  # they only grow

    def cost(self) -> Cost:
        """What it takes now: the whole plan while open, what it spent once closed."""
        return self.cost_of(len(self.turns) if self.closed else self.num_turns)

    def cost_of(self, num_turns: int) -> Cost:
        """What it takes with this many turns; nothing where it is unprotected."""
        if not self.is_protected:
            return NOTHING
        return Cost.of(
            self.epsilon,
            self.delta,
            self.renyi,
            num_steps=self.num_steps,
            num_turns=num_turns,
        )


@dataclass(frozen=True)
class Spend:
    """The answer to `spend`: what the turn may do now.

    Attributes:
        state: "new" and "again": read rows and train; "sealed": send the sealed
            bytes again and read nothing.
        attempt: 1 for "new", 2 and more for "again".
        sealed_sha256: Of the sealed bytes; empty unless `state` is "sealed".
    """

    state: Literal["new", "again", "sealed"]
    attempt: int
    sealed_sha256: str = ""


@dataclass(frozen=True)
class Refusal:
    """A study that had no room, as its entry says it."""

    seq: int
    body: Body


class Book:
    """Everything the entries applied so far say."""

    def __init__(self) -> None:
        self.seq = 0  # of the last entry applied
        self.site = ""
        self.public_hex = ""
        self.time = ""  # of the last entry applied; for people, never for order
        self.budgets: dict[str, Budget] = {}
        self.grants: dict[str, Grant] = {}
        self.refusals: list[Refusal] = []
        self._charged: dict[str, Cost] = {}  # budget name: sum, so that a gate is O(1)
        self._counted: dict[str, dict[str, None]] = {}  # budget name: grant ids
        self._by_run: dict[tuple[str, str, str], str] = {}

    def apply(self, entry: Entry) -> None:
        """Learn one entry.

        Raises:
            IntegrityError: It is not the next one, or says what cannot be after
                those before it, such as a turn beyond the plan (GLD-I007).
        """
        try:
            learn, body = _LEARN.get(entry.kind), entry.content()
            if entry.seq != self.seq + 1 or learn is None:
                raise _ImpossibleError
            if (entry.seq == 1) != (entry.kind == "ledger"):
                raise _ImpossibleError
            learn(self, entry.seq, body)
            self.time = str(body["time"])
        except CANNOT_BE:
            raise IntegrityError(
                "GLD-I007",
                f"entry {entry.seq} ({entry.kind}) cannot follow the entries before it",
                why="It is signed, but no correct Guilder of this format wrote it.",
                fix="Check that this Guilder is not older than the ledger.",
            ) from None
        self.seq = entry.seq

    def charged(self, budget: Budget) -> Cost:
        """All that studies have spent or reserved of a budget."""
        return self._charged[budget.name]

    def grants_of(self, budget: Budget) -> list[Grant]:
        """The grants that count against a budget.

        They are those on a dataset that the budget names, or named at any time
        since they were granted; so neither a new name for the budget nor a
        dataset taken off its list frees anything.
        """
        counted = self._counted.get(budget.name, {})
        return [self.grants[grant_id] for grant_id in counted]

    def budgets_of(self, dataset: str) -> list[Budget]:
        """The budgets that a study on this dataset must fit in, all of them."""
        return [b for b in self.budgets.values() if dataset in b.datasets]

    def covers(self, grant: Grant) -> bool:
        """Whether today's budgets hold all that is granted on this grant's rows."""
        budgets = self.budgets_of(grant.dataset)
        held = all(each.filters.have_room(self.charged(each)) for each in budgets)
        return not grant.is_protected or (bool(budgets) and held)

    def granted(self, server: str, run_id: str, study_digest: str) -> Grant | None:
        """The grant of this run, if it has one."""
        grant_id = self._by_run.get((server, run_id, study_digest))
        return None if grant_id is None else self.grants[grant_id]

    def _ledger(self, _: int, body: Body) -> None:
        _demand(body["format"] == FORMAT)
        self.site, self.public_hex = str(body["site"]), str(body["public_key"])

    def _budget(self, _: int, body: Body) -> None:
        budget = read_budget(body)
        self.budgets[budget.name] = budget
        self._charged.setdefault(budget.name, NOTHING)
        for grant in self.grants.values():
            if grant.dataset in budget.datasets:
                self._count(grant, budget.name)

    def _withdraw(self, _: int, body: Body) -> None:
        del self.budgets[body["name"]]  # what was charged to it stays counted

    def _reserve(self, _: int, body: Body) -> None:
        grant = read_grant(body)
        key = (grant.server, grant.run_id, grant.study_digest)
        _demand(grant.grant_id not in self.grants and key not in self._by_run)
        self.grants[grant.grant_id] = grant
        self._by_run[key] = grant.grant_id
        for budget in self.budgets_of(grant.dataset):
            self._count(grant, budget.name)

    def _refuse(self, seq: int, body: Body) -> None:
        self.refusals.append(Refusal(seq, body))

    def _spend(self, _: int, body: Body) -> None:
        grant, turn_no = self.grants[body["grant_id"]], int(body["turn_no"])
        turn = grant.turns.get(turn_no)
        _demand(not grant.closed and body["attempt"] <= 1 + NUM_REPEATS)
        if turn is None:
            _demand(grant.newest_turn() < turn_no <= grant.num_turns)
            _demand(body["attempt"] == 1)
            turn = Turn(turn_no, str(body["request_hash"]), 1, str(body["time"]))
        else:
            _demand(turn.request_hash == body["request_hash"])
            _demand(turn.sealed_sha256 is None and not turn.given_up)
            _demand(turn.attempts + 1 == body["attempt"])
            turn = replace(turn, attempts=turn.attempts + 1)
        grant.turns[turn.turn_no] = turn

    def _seal(self, _: int, body: Body) -> None:
        grant = self.grants[body["grant_id"]]
        turn = grant.turns[body["turn_no"]]
        _demand(turn.sealed_sha256 is None and not turn.given_up)
        sha256, time = str(body["sha256"]), str(body["time"])
        grant.turns[turn.turn_no] = replace(turn, sealed_sha256=sha256, sealed_at=time)

    def _give_up(self, _: int, body: Body) -> None:
        grant = self.grants[body["grant_id"]]
        turn = grant.turns[body["turn_no"]]
        _demand(turn.sealed_sha256 is None and not turn.given_up)
        grant.turns[turn.turn_no] = replace(turn, given_up=True)

    def _receive(self, _: int, body: Body) -> None:
        grant = self.grants[body["grant_id"]]
        turn = grant.turns[body["turn_no"]]
        _demand(turn.sealed_sha256 is not None and turn.receipt is None)
        grant.turns[turn.turn_no] = replace(turn, receipt=str(body["receipt"]))

    def _close(self, _: int, body: Body) -> None:
        grant = self.grants[body["grant_id"]]
        _demand(not grant.closed and body["num_spent"] == len(grant.turns))
        closed = replace(grant, closed=True)
        self.grants[grant.grant_id] = closed
        for name, counted in self._counted.items():
            if grant.grant_id in counted:
                self._charged[name] += closed.cost() - grant.cost()

    def _count(self, grant: Grant, name: str) -> None:
        counted = self._counted.setdefault(name, {})
        if grant.grant_id not in counted:
            counted[grant.grant_id] = None
            self._charged[name] += grant.cost()


_LEARN: dict[str, Callable[[Book, int, Body], None]] = {
    "ledger": Book._ledger,
    "budget": Book._budget,
    "withdraw": Book._withdraw,
    "reserve": Book._reserve,
    "refuse": Book._refuse,
    "spend": Book._spend,
    "seal": Book._seal,
    "give-up": Book._give_up,
    "receipt": Book._receive,
    "close": Book._close,
}


def is_protected(event: Body) -> bool:
    """False where any part of the event is a release without noise.

    Raises:
        PlanError: The event is not of the documented form (GLD-P003).
    """
    return events.merge([(event, 1)]) is not None


def num_steps(event: Body) -> int:
    """Noised sums in an event; 0 for one that is unprotected.

    Raises:
        PlanError: The event is not of the documented form (GLD-P003).
    """
    return sum(leaf.num_steps for leaf in events.merge([(event, 1)]) or ())


class _ImpossibleError(Exception):
    """An entry that no correct writer would have written."""


# What reading the body of an entry raises if it cannot be.
CANNOT_BE = (
    _ImpossibleError,
    PlanError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
)


def _demand(holds: bool) -> None:
    if not holds:
        raise _ImpossibleError


def read_budget(body: Body) -> Budget:
    """The budget that the body of a `budget` entry makes; raises `CANNOT_BE`."""
    budget = Budget(
        str(body["name"]),
        float(body["epsilon"]),
        float(body["delta"]),
        tuple(str(name) for name in body["datasets"]),
    )
    _demand(0 < budget.epsilon < math.inf and 0 < budget.delta < 1)
    return budget


def read_grant(body: Body) -> Grant:
    """The grant that the body of a `reserve` entry makes; raises `CANNOT_BE`."""
    renyi = tuple(float(body["renyi"][str(order)]) for order in ORDERS)
    event = dict(body["turn_event"])
    _demand(body["protected"] == is_protected(event) and body["num_turns"] >= 1)
    _demand(all(0 <= r < math.inf for r in renyi))
    _demand(0 < body["epsilon"] < math.inf and 0 < body["delta"] < 1)
    return Grant(
        grant_id=str(body["grant_id"]),
        run_id=str(body["run_id"]),
        server=str(body["server"]),
        study_digest=str(body["study_digest"]),
        study_name=str(body["study_name"]),
        dataset=str(body["dataset"]),
        epsilon=float(body["epsilon"]),
        delta=float(body["delta"]),
        turn_event=event,
        num_turns=int(body["num_turns"]),
        num_steps=num_steps(event),
        renyi=renyi,
        is_protected=bool(body["protected"]),
        meta=dict(body["meta"]),
        reserved_at=str(body["time"]),
    )
