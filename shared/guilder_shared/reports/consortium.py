"""Several sites' reports as one: each is verified first, none is believed.

Computed from signed reports by whoever holds them; it carries no signature of its own,
for everybody can compute it again. Reads no ledger and no row.

The mathematics: sites account for themselves. Sums over sites are shown for persons
alone, over as many sites as the study says one person can be at.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rfc8785

from guilder_shared import durable
from guilder_shared.errors import IntegrityError
from guilder_shared.messages import sha256
from guilder_shared.reports import claims, files
from guilder_shared.reports.build import SCHEMA as REPORT
from guilder_shared.reports.crosscheck import cross_check
from guilder_shared.reports.verify import (
    Verification,
    check,
    verification,
    verify_bytes,
)

SCHEMA = "guilder-consortium-1"
BEGINS = b'{"reports":'
MOST_SITES = 1_000
NAMED = re.compile(r"guilder-consortium-([0-9]{1,9})")
Report = dict[str, Any]


def combine(paths: Sequence[Path]) -> Report:
    """What several verified reports say together.

    Args:
        paths: Each a `SITE.report.json`.

    Returns:
        `sites` (name, key, head, SHA-256 of the file), `studies`, by digest, each
        with a line per site, and `reports`, whole, so that everybody can check it.

    Raises:
        IntegrityError: As `verify`, for the first report that is not sound; two are of
            one site (GLD-I093).
    """
    found = []
    for path in sorted(paths):
        raw = files.load(path)
        signed = files.read(raw)
        if signed.schema != REPORT:
            raise files.no_file("it is an export of a ledger", path.name)
        check(signed)
        found.append((signed.content, raw))
    return {**_table(found), "reports": [report for report, _ in found]}


def write(found: Report, path: Path) -> None:
    """Write what `combine` found as the file that `verify` takes; durable."""
    durable.write(path, rfc8785.dumps(found) + b"\n")


@dataclass(frozen=True)
class VerifiedSites:
    """What a consortium's report that is sound says, site by site."""

    sites: tuple[Verification, ...]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        sites = [site.to_json() for site in self.sites]
        return {"ok": True, "schema": SCHEMA, "sites": sites}

    def to_text(self) -> str:
        """For people."""
        return "\n\n".join(site.to_text() for site in self.sites)


def verify_any(
    path: Path,
    *,
    keys: Collection[str] = (),
    officers: Collection[str] = (),
    ledger: Path | None = None,
    cross: bool = False,
) -> Verification | VerifiedSites:
    """Check a report, an export or a consortium's report.

    Args:
        path: The file.
        keys: Sites' public keys as the reader knows them: every site's must be there.
        officers: Officers' keys that ledgers began with, likewise.
        ledger: As `verify`; of one site, so not with a consortium's report (GLD-I094).
        cross: As `verify`.

    Raises:
        IntegrityError: As `verify`, for the first report that is not sound; two are of
            one site (GLD-I093); the table does not follow from them (GLD-I013,
            GLD-I091).
    """
    raw = files.load(path)
    if not raw.startswith(BEGINS):
        return verify_bytes(raw, keys, officers, ledger, cross=cross)
    if ledger is not None:
        raise IntegrityError(
            "GLD-I094",
            "a consortium's report is compared with no ledger",
            why="A ledger is one site's.",
            fix="Verify that site's own report beside its ledger.",
        )
    table = _content(raw)
    told, found = [], []
    for report in table.pop("reports"):
        each = rfc8785.dumps(report) + b"\n"
        signed = files.read(each, keys)
        if signed.schema != REPORT:
            raise files.no_file("a report in it is none")
        true = check(signed, officers)
        site = verification(signed, true, keys, officers)
        told.append(replace(site, accountants=cross_check(true)) if cross else site)
        found.append((report, each))
    claims.compare(_table(found), table)
    return VerifiedSites(tuple(told))


def _content(raw: bytes) -> Report:
    if not raw.endswith(b"}\n"):
        raise files.cut_off()
    content = files.canonical(raw[:-1])
    schema, reports = content.get("schema"), content["reports"]
    named = NAMED.fullmatch(schema) if isinstance(schema, str) else None
    whole = isinstance(reports, list) and 0 < len(reports) <= MOST_SITES
    if not whole or named is None or not all(isinstance(r, dict) for r in reports):
        raise files.no_file("a part of it is missing or of another kind")
    if int(named[1]) > 1:
        raise files.too_new(str(schema), SCHEMA)
    if schema != SCHEMA:
        raise files.no_file("it names no schema that is read here")
    return dict(content)


def _table(found: Sequence[tuple[Report, bytes]]) -> Report:
    """What reports that are sound say together, with the bytes of each file."""
    sites, studies = [], dict[str, Report]()
    for report, raw in found:
        site = report["site"]["name"]
        sites.append(
            {
                "site": site,
                "public_key": report["site"]["public_key"],
                "as_of": report["as_of"],
                "head": report["ledger"]["head"],
                "sha256": sha256(raw),
            }
        )
        for study in report["studies"]:
            line = studies.setdefault(study["digest"], _study(study))
            line["sites"].append(_at_site(site, study))
    if len({each["public_key"] for each in sites}) < len(sites):
        raise IntegrityError(
            "GLD-I093",
            "two of the reports are of one site",
            why="Its studies would count twice.",
            fix="Take the newest report of each site.",
        )
    return {"schema": SCHEMA, "sites": sites, "studies": list(studies.values())}


def _study(study: Report) -> Report:
    guarantee = study["guarantee"]
    return {
        "name": study["name"],
        "digest": study["digest"],
        "purpose": study["purpose"],
        "unit": guarantee["unit"],
        "protected": guarantee["protected"],
        "across_sites": guarantee.get("across_sites"),
        "sites": [],
    }


def _at_site(site: str, study: Report) -> Report:
    (line,) = study["events"]
    return {
        "site": site,
        "run_id": study["run_id"],
        "epsilon": study["totals"]["epsilon"],
        "delta": study["totals"]["delta"],
        "num_turns": line["num_turns"],
        "num_turns_spent": line["num_turns_spent"],
        "approval": study["approval"]["order_id"],
        "simulated": study["guarantee"]["simulated"],
    }
