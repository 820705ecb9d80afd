"""A ledger as a file of lines, for auditors: every entry, and one line that signs all.

A report carries the same entries; an export is what a report can be compared with, by
`guilder privacy verify --ledger` or by the second verifier. It reads no row.
"""

import json
from pathlib import Path
from typing import Any

import rfc8785

from guilder_shared.chain import Entry, check_chain, unhex
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import verify as verify_signature
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.reports.build import row

SCHEMA = "guilder-ledger-export-1"


def export(ledger: Ledger) -> bytes:
    """The file: a line of canonical JSON for each entry, and one that signs them.

    The same ledger gives the same bytes; see `docs/ledger.md`.
    """
    rows = [row(entry) for entry in ledger.entries()]
    end: dict[str, Any] = {
        "schema": SCHEMA,
        "site": {"name": ledger.site, "public_key": rows[0]["body"]["public_key"]},
        "num_entries": len(rows),
        "head": rows[-1]["hash"],
    }
    signature = ledger.sign(_signed_bytes(end)).hex()
    lines = [*rows, {**end, "signature": signature}]
    return b"".join(rfc8785.dumps(line) + b"\n" for line in lines)


def compare(entries: list[Entry], public_hex: str, path: Path) -> None:
    """Raise unless a ledger's export holds these entries, in the same order.

    Args:
        entries: Of a report that is sound.
        public_hex: Of its site.
        path: The export.

    Raises:
        IntegrityError: It is no export (GLD-I011, GLD-I071), was changed (GLD-I001,
            GLD-I003, GLD-I012), is of another ledger (GLD-I073), or does not hold
            the report's entries (GLD-I074).
    """
    found = _read(path, public_hex)
    if found[0] != entries[0]:
        raise _error("GLD-I073", "report and ledger are of different ledgers")
    for mine, theirs in zip(entries, found, strict=False):
        if mine != theirs:
            raise _error(
                "GLD-I074", f"report and ledger differ from entry {mine.seq} on"
            )
    if len(found) < len(entries):
        raise _error(
            "GLD-I074",
            f"the ledger ends at entry {len(found)}, the report at {len(entries)}",
        )


def _read(path: Path, public_hex: str) -> list[Entry]:
    try:
        raw = path.read_bytes()
        *rows, end = (json.loads(line) for line in raw.splitlines())
        signature = unhex(str(end.pop("signature")))
        entries = [_entry(**each) for each in rows]
        is_whole = (end["num_entries"], end["head"]) == (len(rows), rows[-1]["hash"])
        site_key, schema = end["site"]["public_key"], end["schema"]
        same = b"".join(rfc8785.dumps(each) + b"\n" for each in rows)
    except OSError as error:
        raise _error("GLD-I011", f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _error("GLD-I071", f"{path.name} is no whole export") from None
    if schema != SCHEMA or not is_whole or not raw.startswith(same):
        raise _error("GLD-I071", f"{path.name} is no whole export")
    if site_key != public_hex:
        raise _error("GLD-I073", "report and ledger are of different sites")
    list(check_chain(entries, public_hex))
    if not verify_signature(public_hex, _signed_bytes(end), signature):
        raise _error("GLD-I012", f"{path.name} was not signed by the site")
    return entries


def _entry(
    seq: int, kind: str, body: Any, prev: str, hash: str, signature: str
) -> Entry:
    return Entry(seq, kind, rfc8785.dumps(body), prev, hash, signature)


def _signed_bytes(end: dict[str, Any]) -> bytes:
    return SCHEMA.encode() + b"\n" + rfc8785.dumps(end)


def _error(error_id: str, what: str) -> IntegrityError:
    return IntegrityError(error_id, what, fix="Ask the site for both files again.")
