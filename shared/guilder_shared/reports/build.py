"""A report's content, computed from a ledger's entries and nothing else.

The same entries give the same bytes: every time in a report is an entry's own. This
module signs through the ledger; it reads no rows and no clock, and writes no file.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import rfc8785

from guilder_shared.chain import Entry
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.privacy.ledger.book import Book
from guilder_shared.privacy.ledger.filters import Cost
from guilder_shared.privacy.ledger.grants import Grant, Turn
from guilder_shared.privacy.ledger.totals import totals
from guilder_shared.reports import approvals, figures, words
from guilder_shared.reports.silences import silences

SCHEMA = "guilder-report-2"
Report = dict[str, Any]


def build(ledger: Ledger) -> Report:
    """The signed report of a site: every study, every budget, every entry.

    Computes each study's epsilon anew from its events, about one second a study
    (equal ones once).

    Returns:
        An object whose canonical JSON is the report file; see `docs/ledger.md`.

    Raises:
        IntegrityError: An entry cannot follow those before it (GLD-I007).
    """
    unsigned = content(ledger.entries())
    return {**unsigned, "signature": ledger.sign(signed_bytes(unsigned)).hex()}


def signed_bytes(unsigned: Report) -> bytes:
    """The bytes that a report's signature is made over."""
    return SCHEMA.encode() + b"\n" + rfc8785.dumps(unsigned)


def content(entries: Iterable[Entry]) -> Report:
    """Everything in a report but its signature.

    Args:
        entries: From the first one on; their chain is checked by the caller.
    """
    book, rows = Book(), []
    for entry in entries:
        book.apply(entry)
        rows.append(row(entry))
    return compose(book, rows)


def compose(book: Book, rows: list[Report]) -> Report:
    """Everything in a report but its signature, from a replayed book.

    Args:
        book: What the entries say.
        rows: The entries themselves, as the report carries them.
    """
    head = {"seq": book.seq, "hash": rows[-1]["hash"] if rows else ""}
    silent = silences(book)
    return {
        "schema": SCHEMA,
        "as_of": book.time,
        "site": {"name": book.site, "public_key": book.public_hex},
        "officer": approvals.officer(book),
        "studies": [_study(book, grant) for grant in book.grants.values()],
        "budgets": [_budget(book, name) for name in sorted(book.budgets)],
        "orders": approvals.orders(book),
        "refusals": [refusal.body for refusal in book.refusals],
        "not_protected": list(words.NOT_PROTECTED),
        **({"silences": silent} if silent else {}),
        "ledger": {"head": head, "entries": rows},
    }


def _study(book: Book, grant: Grant) -> Report:
    header = words.study_of(grant).get("study", {})
    return {
        "name": grant.study_name,
        "purpose": str(header.get("purpose", "")),
        "digest": grant.study_digest,
        "grant_id": grant.grant_id,
        "run_id": grant.run_id,
        "server": grant.server,
        "dataset": grant.dataset,
        "accepted_at": grant.reserved_at,
        "ended": grant.closed,
        "approval": approvals.approval(book, grant),
        **_software(grant),
        "guarantee": words.guarantee(grant),
        "curve": figures.curve(grant),
        "beliefs": figures.beliefs(grant),
        "events": [_events(grant)],
        "totals": _study_totals(grant),
        "releases": [_release(turn) for turn in grant.turns.values()],
    }


def _software(grant: Grant) -> Report:
    """What was installed at the site when it accepted; older sites did not say."""
    told = grant.meta.get("software")
    return {"software": told} if isinstance(told, dict) else {}


def _events(grant: Grant) -> Report:
    """The mechanism of a turn, how often, and whose event it is if no record's."""
    line = {
        "event": grant.turn_event,
        "num_turns": grant.num_turns,
        "num_turns_spent": len(grant.turns),
    }
    unit = words.unit_of(grant)
    return line if unit == "record" else {**line, "unit": unit}


def _study_totals(grant: Grant) -> Report:
    """Epsilon as accepted, as recomputed from events, and of the turns spent."""
    return {
        "epsilon": grant.epsilon if grant.is_protected else None,
        "delta": grant.delta,
        "covers": words.WHOLE,
        "recomputed_epsilon": epsilon_of(grant, grant.num_turns),
        "prefix": {
            "covers": words.PREFIX,
            "epsilon": epsilon_of(grant, len(grant.turns)),
            "num_turns": len(grant.turns),
        },
        **({} if grant.evidence is None else {"evidence": grant.evidence}),
    }


def epsilon_of(grant: Grant, num_turns: int) -> float | None:
    """Epsilon of this many turns at the study's delta, by privacy loss distribution.

    Returns:
        Rounded up to six decimals; 0 for no turns; None where it is unprotected.
    """
    if num_turns == 0:
        return 0.0
    if not grant.is_protected:
        return None
    value = accounting.epsilon([(grant.turn_event, num_turns)], grant.delta)
    return figures.up(value)


def _release(turn: Turn) -> Report:
    return {
        "turn_no": turn.turn_no,
        "charged_at": turn.spent_at,
        "started": turn.attempts,
        "sealed_at": turn.sealed_at,
        "sha256": turn.sealed_sha256,
        "received": turn.receipt is not None,
        "given_up": turn.given_up,
    }


def _budget(book: Book, name: str) -> Report:
    totalled = totals(book, name)
    budget = totalled.budget
    by_unit = _by_unit(book.grants_of(budget))
    return {
        "name": budget.name,
        "datasets": list(budget.datasets),
        "unit": budget.unit,
        "period": None if totalled.period is None else asdict(totalled.period),
        "epsilon": {
            "limit": budget.epsilon,
            "spent": totalled.spent_epsilon,
            "reserved": totalled.reserved_epsilon,
            "left": totalled.left_epsilon,
        },
        "delta": {
            "limit": budget.delta / 2,
            "spent": totalled.spent_delta,
            "reserved": totalled.reserved_delta,
            "left": totalled.left_delta,
        },
        "delta_of_all_filters": budget.delta,
        "history": figures.history(book, budget),
        "renyi_used": {str(a): used for a, used in totalled.renyi_used.items()},
        **({"by_unit": by_unit} if by_unit.keys() - {"record"} else {}),
    }


def _by_unit(grants: Iterable[Grant]) -> Report:
    """What the pure sum holds of each unit: only figures of one unit are comparable."""
    sums: dict[str, Cost] = {}
    for grant in grants:
        unit = words.unit_of(grant)
        sums[unit] = sums.get(unit, Cost()) + grant.cost()
    return {
        unit: {"epsilon": float(cost.epsilon), "delta": float(cost.delta)}
        for unit, cost in sorted(sums.items())
    }


def row(entry: Entry) -> Report:
    """An entry as reports and exports hold it."""
    return {
        "seq": entry.seq,
        "kind": entry.kind,
        "body": entry.content(),
        "prev": entry.prev,
        "hash": entry.hash,
        "signature": entry.signature,
    }
