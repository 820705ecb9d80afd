"""Figures for comparison: a study's other deltas, what a guess gains, sums over time.

Computed from entries; none of them is a guarantee of its own, and the ledger decides by
none of them. Loads no torch.

The mathematics: epsilon at other deltas is the same mechanism's privacy profile
(`accounting.epsilon`). Whoever believed with chance p that a unit was there believes it
afterwards with at most p e^epsilon / (p e^epsilon + 1 - p), except with chance delta
(Kasiviswanathan and Smith 2014). Composed figures treat the studies as if they had been
fixed beforehand; the filters (`docs/ledger.md`) do not need that.
Crash order: reads only.
"""

import math
from typing import Any

from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger.book import Book
from guilder_shared.privacy.ledger.budgets import Budget
from guilder_shared.privacy.ledger.grants import Grant

Report = dict[str, Any]
PRIORS = (0.01, 0.1, 0.5)
MOST_POINTS = 12  # of a budget's history; each composes all studies before it


def curve(grant: Grant) -> list[Report]:
    """The study's epsilon at a tenth and at ten times its delta as well."""
    if not grant.is_protected:
        return []
    event = [(grant.turn_event, grant.num_turns)]
    deltas = [float(f"{grant.delta * factor:.3g}") for factor in (0.1, 1, 10)]
    return [
        {"delta": delta, "epsilon": up(accounting.epsilon(event, delta, grid="coarse"))}
        for delta in deltas
        if delta < 1
    ]


def beliefs(grant: Grant) -> list[Report]:
    """What an observer may come to believe about one unit, by what it believed."""
    if not grant.is_protected:
        return []
    odds = math.exp(min(grant.epsilon, 700))
    return [
        {"before": prior, "at_most": up(prior * odds / (prior * odds + 1 - prior))}
        for prior in PRIORS
    ]


def history(book: Book, budget: Budget) -> list[Report]:
    """Each acceptance: the sum of the studies' epsilons, and their composition.

    Returns:
        The newest `MOST_POINTS`. `composed` is at half the budget's delta, and None
        where studies protect different units.
    """
    counted = [g for g in book.grants_of(budget) if g.cost().epsilon > 0]
    points = []
    for last in range(len(counted)):
        if len(counted) - last > MOST_POINTS:
            continue
        so_far = counted[: last + 1]
        points.append(
            {
                "time": counted[last].reserved_at,
                "study": counted[last].study_name,
                "sum": float(sum(g.cost().epsilon for g in so_far)),
                "composed": _composed(so_far, budget.delta / 2),
            }
        )
    return points


def _composed(grants: list[Grant], delta: float) -> float | None:
    if len({grant.unit for grant in grants}) > 1:
        return None
    events = [(grant.turn_event, grant.num_turns) for grant in grants]
    return up(accounting.epsilon(events, delta, grid="coarse"))


def up(value: float) -> float:
    """Rounded up to six decimals."""
    return math.ceil(value * 1e6) / 1e6
