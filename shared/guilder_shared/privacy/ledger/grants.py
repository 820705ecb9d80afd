"""Grants and turns: what one run of one study may spend here, and what it spent.

Data only, read from entries; `replay.py` applies them and `writer.py` decides.

The mathematics: a grant's cost is that of all its turns while it is open, and of the
turns spent once it is closed (`filters.Cost.of`). Crash order: reads only.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from guilder_shared.privacy.ledger.bodies import (
    Body,
    demand,
    is_hex,
    is_protected,
    num_steps,
)
from guilder_shared.privacy.ledger.filters import NOTHING, ORDERS, Cost
from guilder_shared.study import Study

NUM_REPEATS = 3  # times a turn that was spent and not sealed may run again
UNITS = ("record", "person", "site")


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
        head_no: The seal's number among those for the same server; None until then.
        receipt: What the server answered; None until it did.
        given_up: Started too often without a seal; nothing of it ever leaves.
        measures: How many turns' shares of the charged metrics it releases at once;
            0 where it measures nothing.
    """

    turn_no: int
    request_hash: str
    attempts: int
    spent_at: str
    sealed_sha256: str | None = None
    sealed_at: str | None = None
    head_no: int | None = None
    receipt: str | None = None
    given_up: bool = False
    measures: int = 0


@dataclass(frozen=True)
class Asked:
    """What a study asks of a site, as far as an officer's permission looks at it.

    Attributes:
        study_digest: SHA-256 of the study, hex.
        dataset: Whose rows it reads.
        recipe: The kind of task.
        unit: Whose presence is hidden: "record", "person" or "site".
        epsilon: Of the whole study; means nothing where it is unprotected.
        delta: Likewise.
        cohort: Fewest sites in a round.
        is_protected: False where it adds no noise at all.
    """

    study_digest: str
    dataset: str
    recipe: str
    unit: str
    epsilon: float
    delta: float
    cohort: int
    is_protected: bool = True


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
        recipe: The kind of task.
        unit: Whose presence is hidden: "record", "person" or "site".
        cohort: Fewest sites in a round, by the study.
        approval: The officer's order that permits it: an approval or a rule.
        epsilon: Of all `num_turns` turns together.
        delta: Of all turns together.
        turn_event: The mechanism of one turn, as data.
        num_turns: How many turns may be spent.
        num_steps: Noised sums in one turn; 0 where it is unprotected.
        renyi: Rényi divergence of one turn at `filters.ORDERS`, in nats.
        is_protected: False where the turn's event has no noise at all.
        meta: Public facts: the study whole, the plan, whether it is simulated.
        reserved_at: Time, from its entry.
        evidence: What other accountants said at acceptance; None if not kept.
        closed: The study ended; no turn can be spent any more.
        turns: Those charged, by number, in order.
    """

    grant_id: str
    run_id: str
    server: str
    study_digest: str
    study_name: str
    dataset: str
    recipe: str
    unit: str
    cohort: int
    approval: str
    epsilon: float
    delta: float
    turn_event: Body
    num_turns: int
    num_steps: int
    renyi: tuple[float, ...]
    is_protected: bool
    meta: Body
    reserved_at: str
    evidence: Body | None = None
    closed: bool = False
    turns: dict[int, Turn] = field(default_factory=dict)

    def snapshot(self) -> "Grant":
        """A copy that later entries do not change."""
        return replace(self, turns=dict(self.turns))

    def newest_turn(self) -> int:
        """The highest turn number charged so far; 0 if there is none."""
        return next(reversed(self.turns), 0)  # they only grow

    def unmeasured(self) -> int:
        """Turns charged, this one included, whose share of the metrics is unspent.

        What was given up released nothing, and never will.
        """
        spent = sum(t.measures for t in self.turns.values() if not t.given_up)
        return len(self.turns) + 1 - spent

    def asked(self) -> Asked:
        """What it asked of the officer."""
        return Asked(
            self.study_digest,
            self.dataset,
            self.recipe,
            self.unit,
            self.epsilon,
            self.delta,
            self.cohort,
            self.is_protected,
        )

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
        measures: As of the turn.
    """

    state: Literal["new", "again", "sealed"]
    attempt: int
    sealed_sha256: str = ""
    measures: int = 0


@dataclass(frozen=True)
class Refusal:
    """A study that had no room or no permission, as its entry says it."""

    seq: int
    body: Body


def asked_by(study: Study) -> Asked:
    """What a study asks of a site's officer, by its own text."""
    return Asked(
        study.digest(),
        study.data.dataset,
        study.study.recipe,
        study.privacy.unit,
        study.privacy.epsilon,
        study.privacy.delta,
        study.aggregation.min_sites,
        study.privacy.mechanism != "none",
    )


def read_grant(body: Body) -> Grant:
    """The grant that the body of a `reserve` entry makes; raises `CANNOT_BE`."""
    renyi = tuple(float(body["renyi"][str(order)]) for order in ORDERS)
    event = dict(body["turn_event"])
    demand(body["protected"] == is_protected(event) and body["num_turns"] >= 1)
    demand(all(0 <= r < math.inf for r in renyi))
    demand(0 < body["epsilon"] < math.inf and 0 < body["delta"] < 1)
    demand(body["unit"] in UNITS and body["cohort"] >= 1)
    demand(is_hex(body["approval"], 64))
    evidence = body.get("evidence")
    return Grant(
        grant_id=str(body["grant_id"]),
        run_id=str(body["run_id"]),
        server=str(body["server"]),
        study_digest=str(body["study_digest"]),
        study_name=str(body["study_name"]),
        dataset=str(body["dataset"]),
        recipe=str(body["recipe"]),
        unit=str(body["unit"]),
        cohort=int(body["cohort"]),
        approval=str(body["approval"]),
        epsilon=float(body["epsilon"]),
        delta=float(body["delta"]),
        turn_event=event,
        num_turns=int(body["num_turns"]),
        num_steps=num_steps(event),
        renyi=renyi,
        is_protected=bool(body["protected"]),
        meta=dict(body["meta"]),
        reserved_at=str(body["time"]),
        evidence=None if evidence is None else dict(evidence),
    )
