"""A ledger as a file of lines, for auditors: every entry, and one line that signs all.

A report carries the same entries; an export is what a report can be compared with, by
`guilder privacy verify --ledger` or by the second verifier. It reads no row.
"""

from typing import Any

import rfc8785

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


def _signed_bytes(end: dict[str, Any]) -> bytes:
    return SCHEMA.encode() + b"\n" + rfc8785.dumps(end)
