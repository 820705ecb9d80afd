"""A whole file checked, and held against what its reader knows: what there is to say.

The answer is a plain object, the same in every language. A file that is not sound has
no answer: it raises.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from guilder_verifier import consortium
from guilder_verifier.budgets import totals
from guilder_verifier.compare import compare, differs
from guilder_verifier.figures import costs_too_much, figures, silences
from guilder_verifier.files import MOST_BYTES, Signed, read
from guilder_verifier.finding import Finding
from guilder_verifier.replay import CANNOT_BE, Replay, replay

Answer = dict[str, Any]


def check(
    raw: bytes,
    keys: Collection[str] = (),
    ledger: bytes | None = None,
    officers: Collection[str] = (),
) -> Answer:
    """Check a report, an exported ledger or a consortium's report.

    Args:
        raw: The file's bytes.
        keys: Sites' public keys as the reader knows them, 64 hexadecimal digits
            each; every site's must be one of them. None: not asked for.
        ledger: An export of the same site's ledger; None: nothing to compare.
        officers: Keys of officers that ledgers began with, likewise.

    Returns:
        What the file says; `key_confirmed`, `officer_confirmed` and `ledger_compared`
        say what of the reader's own knowledge it was held against.

    Raises:
        Finding: The file is not sound, or the two files do not agree.
    """
    confirmed = {"key_confirmed": bool(keys), "officer_confirmed": bool(officers)}
    if raw.startswith(consortium.BEGINS) and len(raw) <= MOST_BYTES:
        if ledger is not None:
            raise Finding("GLD-I094", "a consortium's report goes with no ledger")
        sites = consortium.check(raw, lambda each: _check(each, keys, None, officers))
        return {"ok": True, "schema": consortium.SCHEMA, "sites": sites, **confirmed}
    return {**_check(raw, keys, ledger, officers), **confirmed}


def _check(
    raw: bytes, keys: Collection[str], ledger: bytes | None, officers: Collection[str]
) -> Answer:
    signed = read(raw, keys)
    book = replay(signed.entries)
    first = book.first_officer
    if officers and first not in officers:
        raise Finding(
            "GLD-I092",
            f"the ledger began with the officer's key {first[:16]}..., not yours",
        )
    if signed.schema.startswith("guilder-report-"):
        _check_report(signed.content, book)
    else:
        compare(_site(book), signed.content["site"], "site")
    _check_costs(book)
    if ledger is not None:
        other = read(ledger, keys)
        _compare_files(signed, other)
        replay(other.entries)
    return _answer(signed, book, ledger is not None)


def _check_report(report: Answer, book: Replay) -> None:
    """Every figure, computed anew."""
    claimed = {name: part for name, part in report.items() if name != "signature"}
    try:
        rows = report["ledger"]["entries"]
        compare(figures(book, rows), claimed)
    except CANNOT_BE:
        raise differs("a part that cannot even be computed") from None


def _check_costs(book: Replay) -> None:
    for grant in book.grants.values():
        if costs_too_much(grant):
            name, epsilon = grant.body["study_name"], grant.body["epsilon"]
            raise Finding(
                "GLD-I014",
                f"the events of study {name!r} cost more than the {epsilon:g} that "
                "were accepted",
            )


def _compare_files(one: Signed, other: Signed) -> None:
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


def _answer(signed: Signed, book: Replay, compared: bool) -> Answer:
    return {
        "ok": True,
        "schema": signed.schema,
        "site": book.site,
        "public_key": book.key,
        "ledger_compared": compared,
        "officer": book.orders.officer,
        "as_of": book.time,
        "num_entries": len(signed.entries),
        "budgets": [_budget(budget) for budget in book.in_force()],
        "studies": [_study(grant) for grant in book.grants.values()],
        "silences": silences(book),
    }


def _budget(budget: Any) -> Answer:
    parts, used = totals(budget)
    terms = {"name": budget.terms["name"], "datasets": budget.terms["datasets"]}
    return {**terms, **parts, "renyi_used": used}


def _study(grant: Any) -> Answer:
    body = grant.body
    return {
        "name": body["study_name"],
        "digest": body["study_digest"],
        "unit": body["unit"],
        "protected": grant.protected,
        "simulated": grant.simulated,
        "epsilon": body["epsilon"] if grant.protected else None,
        "delta": body["delta"],
        "num_turns": body["num_turns"],
        "num_turns_spent": len(grant.turns),
    }
