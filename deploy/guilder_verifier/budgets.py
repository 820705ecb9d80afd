"""Budgets and what studies took from them: sums, Rényi filters, periods.

Everything is computed anew from the grants, exactly: decimals as they were typed, and
whole grains of 2^-40 nats. Knows no entry and no order.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fractions import Fraction
from typing import Any

from guilder_verifier.events import MOST, Cost
from guilder_verifier.renyi import ORDERS

GRAIN = 2.0**-40
KEPT_BACK = 0.01  # of epsilon and delta, for the arithmetic of the noise
DAY_S = 86_400


@dataclass
class Grant:
    """One study of one run, and what it did.

    Attributes:
        body: Of its `reserve` entry.
        protected: False: it takes nothing from any budget.
        renyi: Of one turn, by order, as charged.
        turns: Those charged, by number: the state of each.
        closed: No turn can follow.
    """

    body: dict[str, Any]
    protected: bool
    renyi: Cost
    turns: dict[int, dict[str, Any]] = field(default_factory=dict)
    closed: bool = False

    @property
    def simulated(self) -> bool:
        """Whether the noise came from a seed: no guarantee."""
        return bool(self.body["meta"].get("simulated"))

    def part(self, name: str) -> dict[str, Any]:
        """A part of the accepted study; empty where the grant does not carry it.

        Raises:
            ValueError, AttributeError: The study is none.
        """
        text = self.body["meta"].get("study")
        study = json.loads(text) if isinstance(text, str) else {}
        return dict(study.get(name, {}))

    def unmeasured(self) -> int:
        """Turns, with the next one, whose share of the metrics no turn released."""
        kept = [turn for turn in self.turns.values() if not turn["given_up"]]
        return len(self.turns) + 1 - sum(int(t.get("measures", 0)) for t in kept)

    def taken(self) -> Taken:
        """What it takes now: all its turns while open, those spent once closed."""
        num_turns = len(self.turns) if self.closed else self.body["num_turns"]
        if not self.protected or num_turns == 0:
            return Taken()
        grains = {
            a: math.ceil(min(r, MOST) / GRAIN) * num_turns
            for a, r in self.renyi.items()
        }
        return Taken(exact(self.body["epsilon"]), exact(self.body["delta"]), grains)


@dataclass(frozen=True)
class Taken:
    """A sum over studies: exact epsilon and delta, and grains by order."""

    epsilon: Fraction = Fraction(0)
    delta: Fraction = Fraction(0)
    grains: dict[int, int] = field(default_factory=dict)

    def plus(self, other: Taken) -> Taken:
        """Both together."""
        grains = {a: self.grains.get(a, 0) + other.grains.get(a, 0) for a in ORDERS}
        return Taken(self.epsilon + other.epsilon, self.delta + other.delta, grains)


def _nothing() -> Taken:
    return Taken()


@dataclass
class Budget:
    """One budget as its newest order says, and the grants that count against it.

    Attributes:
        terms: Of the order.
        begun: Seconds since 1970 of its first order's entry: where periods begin.
        grants: By id.
        in_force: False once it is withdrawn.
        gap: What was charged for entries that were lost.
        gap_times: When each such charge was entered, and its epsilon.
    """

    terms: dict[str, Any]
    begun: int
    grants: dict[str, Grant] = field(default_factory=dict)
    in_force: bool = True
    gap: Taken = field(default_factory=_nothing)
    gap_times: list[tuple[int, Fraction]] = field(default_factory=list)
    known: Taken | None = None

    def total(self) -> Taken:
        """What all its grants take, and what was charged for lost entries.

        Kept until `forget`: no turn changes what an open grant takes.
        """
        if self.known is None:
            self.known = self.gap.plus(sum_of(self.grants.values()))
        return self.known

    def forget(self) -> None:
        """Add up anew: a grant came or closed, or something was lost."""
        self.known = None

    def charge_gap(self, epsilon: float, delta: float, time: int) -> None:
        """Charge lost entries: their events are unknown, so no Renyi filter holds."""
        full = {order: math.ceil(MOST / GRAIN) for order in ORDERS}
        self.gap = self.gap.plus(Taken(exact(epsilon), exact(delta), full))
        self.gap_times.append((time, exact(epsilon)))

    def holds(self, taken: Taken) -> bool:
        """Whether at least one filter holds all of it."""
        within = taken.epsilon <= exact(self.terms["epsilon"])
        if within and taken.delta <= exact(self.terms["delta"] / 2):
            return True
        capacities = self.capacities().items()
        return any(taken.grains.get(a, 0) <= room / GRAIN for a, room in capacities)

    def capacities(self) -> dict[int, float]:
        """Of each Rényi filter in use, in nats."""
        epsilon, half = float(self.terms["epsilon"]), self.terms["delta"] / 2
        kept = [a for a in ORDERS if _capacity(a, epsilon, half / len(ORDERS)) > 0]
        return {a: _capacity(a, epsilon, half / len(kept)) for a in kept}

    def period_holds(self, grant: Grant) -> bool:
        """Whether the period has room for a grant that does not count yet."""
        if self.terms["period"] is None:
            return True
        taken = self.taken_in_period(grant.body["time"]) + grant.taken().epsilon
        return taken <= exact(self.terms["period"]["epsilon"])

    def taken_in_period(self, time: str) -> Fraction:
        """Epsilon of what was accepted, or charged for a loss, in a time's period."""
        number = self.number(seconds(time))
        taken = [
            each.taken().epsilon
            for each in self.grants.values()
            if self.number(seconds(each.body["time"])) == number
        ]
        lost = [part for at, part in self.gap_times if self.number(at) == number]
        return sum([*taken, *lost], Fraction(0))

    def number(self, time: int) -> int:
        """Of the period that a second lies in."""
        return (time - self.begun) // (int(self.terms["period"]["days"]) * DAY_S)


def sum_of(grants: Any) -> Taken:
    """What these grants take together."""
    total = Taken()
    for grant in grants:
        total = total.plus(grant.taken())
    return total


def totals(budget: Budget) -> tuple[dict[str, Any], dict[str, float]]:
    """A budget as reports give it: its sums, and the shares of its filters in use."""
    grants = budget.grants.values()
    spent = budget.gap.plus(sum_of(grant for grant in grants if grant.turns))
    reserved = sum_of(grant for grant in grants if not grant.turns)
    both = spent.plus(reserved)
    limits = {"epsilon": budget.terms["epsilon"], "delta": budget.terms["delta"] / 2}
    used = {
        str(a): both.grains.get(a, 0) / (room / GRAIN)
        for a, room in budget.capacities().items()
    }
    parts = {
        name: {
            "limit": float(limit),
            "spent": float(getattr(spent, name)),
            "reserved": float(getattr(reserved, name)),
            "left": float(max(exact(limit) - getattr(both, name), Fraction(0))),
        }
        for name, limit in limits.items()
    }
    return parts, used


def period(budget: Budget, time: str) -> dict[str, Any] | None:
    """What the period releases that a time lies in; None: there is none."""
    terms = budget.terms["period"]
    if terms is None:
        return None
    length = int(terms["days"]) * DAY_S
    start = budget.begun + budget.number(seconds(time)) * length
    taken = budget.taken_in_period(time)
    return {
        "begins": stamp(start),
        "ends": stamp(start + length - 1),
        "epsilon": terms["epsilon"],
        "taken_epsilon": float(taken),
        "left_epsilon": float(max(exact(terms["epsilon"]) - taken, Fraction(0))),
    }


def exact(value: float) -> Fraction:
    """The shortest decimal that reads back as this number: what was typed."""
    return Fraction(repr(float(value)))


def seconds(time: str) -> int:
    """An entry's time as seconds since 1970.

    Raises:
        ValueError: It is no such time.
    """
    moment = datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ")
    if len(time) != 20:
        raise ValueError("a time with digits left out")
    return int(moment.replace(tzinfo=timezone.utc).timestamp())


def stamp(moment: int) -> str:
    """Seconds since 1970 as an entry's time."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _capacity(order: int, epsilon: float, delta: float) -> float:
    """Source: Canonne, Kamath and Steinke 2020, proposition 12, for the divergence."""
    part = (math.log(delta * (1 - KEPT_BACK)) + math.log(order)) / (order - 1)
    return epsilon * (1 - KEPT_BACK) + part - math.log1p(-1 / order)
