"""What a report has to say, from its entries; figures that need no privacy loss.

`figures` gives a report's content with a `Rule` in each place whose exact value is not
computed here: a sentence, a figure near another one, an epsilon above its floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from guilder_verifier import events, floor
from guilder_verifier.budgets import Budget, Grant, exact, period, sum_of, totals
from guilder_verifier.replay import Replay

PRIORS = (0.01, 0.1, 0.5)
MOST_POINTS = 12
ADJACENCY = {
    "record": "add or remove one record",
    "person": "add or remove all rows of one person at this site",
    "site": "all rows of this site against none of them; that it takes part is public",
}
COUNTED = {
    "record": "every row, counted once",
    "person": "every person, counted once, as the mean of all its rows",
}
PHRASES = frozenset(["SIMULATED", "UNPROTECTED", *ADJACENCY.values()])
Report = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """What a place in a report must keep to, where its value is not fixed here.

    Attributes:
        kind: "near" a value, "cost" of at least a value, "text", or "texts".
        value: The figure.
        numbers: That a sentence names, in this order; None: any.
        phrases: Of `PHRASES`, those that it holds; no other.
    """

    kind: str
    value: float = 0.0
    numbers: tuple[float, ...] | None = None
    phrases: frozenset[str] = frozenset()


TEXT = Rule("text")


def figures(book: Replay, rows: list[Report]) -> Report:
    """Everything in a report but its signature."""
    last, silent = rows[-1], silences(book)
    return {
        "schema": "guilder-report-2",
        "as_of": book.time,
        "site": {"name": book.site, "public_key": book.key},
        "officer": {
            "public_key": book.orders.officer,
            "fingerprint": book.orders.fingerprint(),
        },
        "studies": [_study(book, grant) for grant in book.grants.values()],
        "budgets": [_budget(book, budget) for budget in book.in_force()],
        "orders": book.orders.lines(),
        "refusals": book.refusals,
        "not_protected": Rule("texts"),
        **({"silences": silent} if silent else {}),
        "ledger": {
            "head": {"seq": last["seq"], "hash": last["hash"]},
            "entries": rows,
        },
    }


def silences(book: Replay) -> list[Report]:
    """Each server that was ever excused or ever forgot, by name."""
    excuses: dict[str, list[Report]] = {}
    for server, line in book.orders.excuses():
        told = {
            "order_id": line["order_id"],
            "since": line["admitted_at"],
            "expires": line["expires"],
            "revoked_at": line["revoked_at"],
        }
        excuses.setdefault(server, []).append(told)
    return [
        {
            "server": server,
            "excused": excuses.get(server, []),
            "forgot": [
                {"at": time, "signed": head_no, "remembered": remembers}
                for head_no, (time, remembers) in book.forgot.get(server, {}).items()
            ],
        }
        for server in sorted({*excuses, *book.forgot})
    ]


def costs_too_much(grant: Grant) -> bool:
    """Whether its events are sure to cost more than was accepted."""
    if not grant.protected:
        return False
    least = _least(grant, grant.body["num_turns"], grant.body["delta"])
    return bool(least > grant.body["epsilon"] * (1 + events.NEAR))


def _study(book: Replay, grant: Grant) -> Report:
    body = grant.body
    return {
        "name": body["study_name"],
        "purpose": str(grant.part("study").get("purpose", "")),
        "digest": body["study_digest"],
        "grant_id": body["grant_id"],
        "run_id": body["run_id"],
        "server": body["server"],
        "dataset": body["dataset"],
        "accepted_at": body["time"],
        "ended": grant.closed,
        "approval": book.orders.line(body["approval"], with_officer=True),
        **_software(grant),
        "guarantee": _guarantee(grant),
        "curve": _curve(grant),
        "beliefs": _beliefs(grant),
        "events": [_event(grant)],
        "totals": _totals(grant),
        "releases": [_release(no, turn) for no, turn in grant.turns.items()],
    }


def _software(grant: Grant) -> Report:
    """What was installed at the site when it accepted; older sites did not say."""
    told = grant.body["meta"].get("software")
    return {"software": told} if isinstance(told, dict) else {}


def _guarantee(grant: Grant) -> Report:
    body, privacy = grant.body, grant.part("privacy")
    epsilon = body["epsilon"] if grant.protected else None
    told: Report = {
        "unit": body["unit"],
        "adjacency": ADJACENCY[body["unit"]],
        "mechanism": str(privacy.get("mechanism", "site-noise")),
        "sampling": _sampling(grant),
        "sample_rate": grant.part("training").get("sample_rate"),
        "clip_norm": privacy.get("clip_norm"),
        "noise_multiplier": body["meta"].get("plan", {}).get("noise_multiplier"),
        "delta": body["delta"],
        "epsilon": epsilon,
        "protected": grant.protected,
        "simulated": grant.simulated,
        "against": TEXT,
        "scope": TEXT,
        "sentence": _sentence(grant),
    }
    if body["unit"] != "record":
        told["caveat"] = TEXT
    sites = privacy.get("max_sites_per_person")
    if sites is not None and grant.protected:
        told["across_sites"] = {
            "max_sites": sites,
            "epsilon": sites * body["epsilon"],
            "delta": sites * body["delta"],
        }
    return told


def _sentence(grant: Grant) -> Rule:
    body = grant.body
    named = (body["epsilon"], body["delta"]) if grant.protected else ()
    phrases = {ADJACENCY[body["unit"]] if grant.protected else "UNPROTECTED"}
    if grant.simulated:
        phrases.add("SIMULATED")
    return Rule("sentence", numbers=named, phrases=frozenset(phrases))


def _sampling(grant: Grant) -> str:
    """Whom a step looks at, in the words of docs/ledger.md."""
    unit, always = grant.body["unit"], grant.part("training").get("sample_rate") == 1
    if grant.part("statistics"):
        return COUNTED.get(unit, COUNTED["record"])
    if unit == "person":
        who = "every person in every step" if always else "Poisson over persons"
        return f"{who}, at most {grant.part('privacy').get('max_records')} rows of each"
    if unit == "site":
        return f"the whole site, {'in every step' if always else 'Poisson'}"
    return "every row in every step" if always else "Poisson"


def _curve(grant: Grant) -> list[Report]:
    if not grant.protected:
        return []
    deltas = [float(f"{grant.body['delta'] * factor:.3g}") for factor in (0.1, 1, 10)]
    turns = grant.body["num_turns"]
    return [
        {"delta": delta, "epsilon": Rule("cost", _least(grant, turns, delta))}
        for delta in deltas
        if delta < 1
    ]


def _beliefs(grant: Grant) -> list[Report]:
    if not grant.protected:
        return []
    odds = math.exp(min(grant.body["epsilon"], 700))
    beliefs = [(prior, prior * odds / (prior * odds + 1 - prior)) for prior in PRIORS]
    return [
        {"before": prior, "at_most": Rule("near", math.ceil(most * 1e6) / 1e6)}
        for prior, most in beliefs
    ]


def _event(grant: Grant) -> Report:
    body = grant.body
    line = {
        "event": body["turn_event"],
        "num_turns": body["num_turns"],
        "num_turns_spent": len(grant.turns),
    }
    return line if body["unit"] == "record" else {**line, "unit": body["unit"]}


def _totals(grant: Grant) -> Report:
    body = grant.body
    told = {
        "epsilon": body["epsilon"] if grant.protected else None,
        "delta": body["delta"],
        "covers": TEXT,
        "recomputed_epsilon": _cost(grant, body["num_turns"]),
        "prefix": {
            "covers": TEXT,
            "epsilon": _cost(grant, len(grant.turns)),
            "num_turns": len(grant.turns),
        },
    }
    evidence = body.get("evidence")
    return told if evidence is None else {**told, "evidence": evidence}


def _cost(grant: Grant, num_turns: int) -> Any:
    if num_turns == 0:
        return 0
    if not grant.protected:
        return None
    return Rule("cost", _least(grant, num_turns, grant.body["delta"]))


def _least(grant: Grant, num_turns: int, delta: float) -> float:
    """The most that one of the units an event may meet is sure to pay."""
    cases = events.cases(grant.body["turn_event"])
    return max(
        (
            floor.epsilon([(z, q, n * num_turns) for z, q, n, _ in steps], delta)
            for steps in cases
            if all(kind == "gaussian" for *_, kind in steps)
        ),
        default=0.0,
    )


def _release(turn_no: int, turn: Report) -> Report:
    return {
        "turn_no": turn_no,
        "charged_at": turn["charged_at"],
        "started": turn["attempt"],
        "sealed_at": turn["sealed_at"],
        "sha256": turn["sha256"],
        "received": turn["received"] is not None,
        "given_up": turn["given_up"],
    }


def _budget(book: Replay, budget: Budget) -> Report:
    told, used = totals(budget)
    by_unit = _by_unit(budget)
    shares = {order: Rule("near", share) for order, share in used.items()}
    return {
        "name": budget.terms["name"],
        "datasets": budget.terms["datasets"],
        "unit": budget.terms["unit"],
        "period": period(budget, book.time),
        **told,
        "delta_of_all_filters": budget.terms["delta"],
        "history": _history(budget),
        "renyi_used": shares,
        **({"by_unit": by_unit} if by_unit.keys() - {"record"} else {}),
    }


def _by_unit(budget: Budget) -> Report:
    units = sorted({grant.body["unit"] for grant in budget.grants.values()})
    told = {}
    for unit in units:
        total = sum_of(g for g in budget.grants.values() if g.body["unit"] == unit)
        told[unit] = {"epsilon": float(total.epsilon), "delta": float(total.delta)}
    return told


def _history(budget: Budget) -> list[Report]:
    counted = [g for g in budget.grants.values() if g.taken().epsilon > 0]
    delta = budget.terms["delta"] / 2
    points = []
    for last in range(max(0, len(counted) - MOST_POINTS), len(counted)):
        so_far = counted[: last + 1]
        mixed = len({grant.body["unit"] for grant in so_far}) > 1
        least = max(_least(g, g.body["num_turns"], delta) for g in so_far)
        total = sum((g.taken().epsilon for g in so_far), exact(0))
        points.append(
            {
                "time": counted[last].body["time"],
                "study": counted[last].body["study_name"],
                "sum": float(total),
                "composed": None if mixed else Rule("cost", least),
            }
        )
    return points
