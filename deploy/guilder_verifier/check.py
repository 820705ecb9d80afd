"""A whole file checked, and a report compared with a ledger: what there is to say.

The answer is a plain object, the same in every language. A file that is not sound has
no answer: it raises.
"""

from __future__ import annotations

import math
from typing import Any

from guilder_verifier import events
from guilder_verifier.budgets import figures
from guilder_verifier.files import Signed, read
from guilder_verifier.finding import Finding
from guilder_verifier.replay import Replay, replay

Answer = dict[str, Any]


def check(raw: bytes, key: str | None = None, ledger: bytes | None = None) -> Answer:
    """Check a report or an exported ledger, and the first against the second.

    Args:
        raw: The file's bytes.
        key: The site's public key as the reader knows it, 64 hexadecimal digits.
        ledger: An export of the same site's ledger; None: nothing to compare.

    Returns:
        What the file says; `key_confirmed` and `ledger_compared` say what of the
        reader's own knowledge it was held against.

    Raises:
        Finding: The file is not sound, or the two files do not agree.
    """
    signed = read(raw, key)
    book = replay(signed.entries)
    if signed.schema.startswith("guilder-report-"):
        _check_report(signed.content, book)
    else:
        demand_same("site", signed.content["site"], _site(book))
    if ledger is not None:
        other = read(ledger, key)
        _compare(signed, other)
        replay(other.entries)
    return _answer(signed, book, key is not None, ledger is not None)


def demand_same(where: str, claimed: Any, true: Any) -> None:
    """Raise unless a file's figure is the one that its entries give (GLD-I013)."""
    if claimed != true or isinstance(claimed, bool) != isinstance(true, bool):
        raise Finding("GLD-I013", f"{where} does not follow from the file's entries")


def _check_report(report: Answer, book: Replay) -> None:
    last = report["ledger"]["entries"][-1]
    head = {"seq": last["seq"], "hash": last["hash"]}
    demand_same("ledger.head", report["ledger"].get("head"), head)
    demand_same("site", report.get("site"), _site(book))
    demand_same("as_of", report.get("as_of", book.time), book.time)
    claimed, true = report.get("budgets"), [figures(b) for b in book.in_force()]
    if not isinstance(claimed, list) or len(claimed) != len(true):
        raise Finding("GLD-I013", "budgets do not follow from the file's entries")
    for one, other in zip(claimed, true):
        _check_budget(one, other)


def _check_budget(claimed: Any, true: Answer) -> None:
    where = f"budget {true['name']!r}"
    try:
        for part in ("name", "datasets"):
            demand_same(f"{where} {part}", claimed[part], true[part])
        for part in ("epsilon", "delta"):
            for name, value in true[part].items():
                demand_same(f"{where} {part} {name}", claimed[part][name], value)
        used = claimed["renyi_used"]
        demand_same(f"{where} orders", sorted(used), sorted(true["renyi_used"]))
        for order, share in true["renyi_used"].items():
            near = math.isclose(used[order], share, rel_tol=events.NEAR)
            demand_same(f"{where} Renyi order {order}", near, True)
    except (KeyError, TypeError, AttributeError):
        raise Finding("GLD-I013", f"{where} is not whole") from None


def _compare(one: Signed, other: Signed) -> None:
    """Both of one site, and the shorter one the beginning of the longer."""
    if one.public_hex != other.public_hex or one.entries[0] != other.entries[0]:
        raise Finding("GLD-I073", "the two files are of different sites or ledgers")
    for mine, theirs in zip(one.entries, other.entries):
        if mine != theirs:
            raise Finding("GLD-I074", f"the two files differ from entry {mine.seq} on")
    if len(other.entries) < len(one.entries):
        raise Finding(
            "GLD-I074",
            f"the ledger ends at entry {len(other.entries)}, the file it should "
            f"hold at {len(one.entries)}",
        )


def _site(book: Replay) -> dict[str, str]:
    return {"name": book.site, "public_key": book.key}


def _answer(signed: Signed, book: Replay, confirmed: bool, compared: bool) -> Answer:
    return {
        "ok": True,
        "schema": signed.schema,
        "site": book.site,
        "public_key": book.key,
        "key_confirmed": confirmed,
        "ledger_compared": compared,
        "officer": book.orders.officer,
        "as_of": book.time,
        "num_entries": len(signed.entries),
        "budgets": [figures(budget) for budget in book.in_force()],
        "studies": [_study(grant) for grant in book.grants.values()],
    }


def _study(grant: Any) -> Answer:
    body = grant.body
    try:
        events.cost(body["turn_event"])
        is_recomputed = True
    except events.UnknownEventError:
        is_recomputed = False
    return {
        "name": body["study_name"],
        "digest": body["study_digest"],
        "unit": body["unit"],
        "protected": grant.protected,
        "simulated": body["meta"].get("simulated") is True,
        "epsilon": body["epsilon"] if grant.protected else None,
        "delta": body["delta"],
        "num_turns": body["num_turns"],
        "num_turns_spent": len(grant.turns),
        "renyi_recomputed": is_recomputed,
    }
