"""A report's two files: the signed JSON, and the same as a page to read."""

import os
from pathlib import Path

import rfc8785

from guilder_shared.privacy.ledger import Ledger
from guilder_shared.reports.build import build
from guilder_shared.reports.page import page


def write(ledger: Ledger, folder: Path, language: str = "en") -> Path:
    """Write `SITE.report.json` and `SITE.report.html`; the same ledger, the same bytes.

    Each file is whole or not there; an older one is replaced.

    Args:
        ledger: Of the site, open for reading or writing.
        folder: Made if missing.
        language: Of the page, "en" or "zh"; the JSON is the same.

    Returns:
        The path of the JSON file, the one that `verify` takes.

    Raises:
        IntegrityError: The ledger is not sound.
        OSError: The folder cannot be written.
    """
    report = build(ledger)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{ledger.site}.report.json"
    _replace(path, rfc8785.dumps(report) + b"\n")
    _replace(path.with_suffix(".html"), page(report, language).encode())
    return path


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)
