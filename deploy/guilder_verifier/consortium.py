"""A consortium's report: every report in it checked whole, and its table made anew.

It bears no signature of its own, for everybody can compute it again. Knows no entry.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

from guilder_verifier import canonical
from guilder_verifier.compare import compare
from guilder_verifier.files import cut_off, no_file
from guilder_verifier.finding import Finding

SCHEMA = "guilder-consortium-1"
BEGINS = b'{"reports":'
MOST_SITES = 1_000
NAMED = re.compile(r"guilder-consortium-([0-9]{1,9})")
Answer = dict[str, Any]


def check(raw: bytes, check_report: Callable[[bytes], Answer]) -> list[Answer]:
    """Check a consortium's report; what is said of each site.

    Args:
        raw: The file's bytes, which begin with `BEGINS`.
        check_report: Checks one report.

    Raises:
        Finding: As `check_report`; GLD-I093 two reports are of one site; GLD-I013,
            GLD-I091 the table does not follow from the reports.
    """
    try:
        text = raw.decode()
    except ValueError:
        raise no_file("it is not UTF-8") from None
    if not text.endswith("}\n"):
        raise cut_off()
    content = _content(text)
    reports = content.pop("reports")
    raws = [canonical.dump(report) + b"\n" for report in reports]
    answers = [check_report(each) for each in raws]
    if len({answer["public_key"] for answer in answers}) < len(answers):
        raise Finding("GLD-I093", "two of its reports are of one site")
    compare(_table(reports, raws), content)
    return answers


def _content(text: str) -> Answer:
    try:
        content = canonical.parse(text[:-1].encode())
        named = NAMED.fullmatch(content["schema"])
        reports = content["reports"]
        whole = isinstance(reports, list) and 0 < len(reports) <= MOST_SITES
        whole = whole and all(isinstance(report, dict) for report in reports)
    except (ValueError, KeyError, TypeError):
        raise no_file("it is no canonical JSON, or a part is missing") from None
    if whole and named is not None and int(named[1]) > 1:
        raise Finding("GLD-I070", f"{named[0]} is newer than this verifier")
    if not whole or content["schema"] != SCHEMA:
        raise no_file("it is no consortium's report as Guilder wrote it")
    return dict(content)


def _table(reports: list[Answer], raws: list[bytes]) -> Answer:
    """What the reports, which are sound, say together."""
    sites, studies = [], dict[str, Answer]()
    for report, raw in zip(reports, raws):
        sites.append(
            {
                "site": report["site"]["name"],
                "public_key": report["site"]["public_key"],
                "as_of": report["as_of"],
                "head": report["ledger"]["head"],
                "sha256": hashlib.sha256(raw).hexdigest(),
            }
        )
        for study in report["studies"]:
            line = studies.setdefault(study["digest"], _shared(study))
            line["sites"].append(_at_site(report["site"]["name"], study))
    return {"schema": SCHEMA, "sites": sites, "studies": list(studies.values())}


def _shared(study: Answer) -> Answer:
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


def _at_site(site: str, study: Answer) -> Answer:
    (event,) = study["events"]
    return {
        "site": site,
        "run_id": study["run_id"],
        "epsilon": study["totals"]["epsilon"],
        "delta": study["totals"]["delta"],
        "num_turns": event["num_turns"],
        "num_turns_spent": event["num_turns_spent"],
        "approval": study["approval"]["order_id"],
        "simulated": study["guarantee"]["simulated"],
    }
