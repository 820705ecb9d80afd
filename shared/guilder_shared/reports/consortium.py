"""One page over several sites' reports: each is verified first, none is believed.

Computed from signed reports by whoever holds them; it carries no signature of its own,
for everybody can compute it again. Reads no ledger and no row.

The mathematics: sites account for themselves. Sums over sites are shown for persons
alone, over as many sites as the study says one person can be at.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from guilder_shared.messages import sha256
from guilder_shared.reports.approvals import fingerprint
from guilder_shared.reports.marks import code, number, table, text
from guilder_shared.reports.page import STYLE
from guilder_shared.reports.texts import Texts
from guilder_shared.reports.verify import verify

SCHEMA = "guilder-consortium-1"
Report = dict[str, Any]


def combine(paths: Sequence[Path]) -> Report:
    """What several verified reports say together.

    Args:
        paths: Each a `SITE.report.json`.

    Returns:
        `sites` (name, key, head, SHA-256 of the file) and `studies`, by digest, each
        with a line per site.

    Raises:
        IntegrityError: As `verify`, for the first report that is not sound.
    """
    sites, studies = [], dict[str, Report]()
    for path in sorted(paths):
        found = verify(path)
        raw = path.read_bytes()
        report = json.loads(raw)
        head = report["ledger"]["head"]
        sites.append(
            {
                "site": found.site,
                "public_key": found.public_key,
                "as_of": found.as_of,
                "head": head,
                "sha256": sha256(raw),
            }
        )
        for study in report["studies"]:
            line = studies.setdefault(study["digest"], _study(study))
            line["sites"].append(_at_site(found.site, study))
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


def page(found: Report, language: str = "en") -> str:
    """The same as one HTML page; every value is escaped.

    Args:
        found: From `combine`.
        language: "en" or "zh".
    """
    say = Texts(language)
    title = text(say("consortium", num=len(found["sites"])))
    head = (say("site"), say("key"), say("as_of"), say("entry"), say("file"))
    sites = (
        (
            each["site"],
            fingerprint(each["public_key"]),
            each["as_of"],
            each["head"]["seq"],
            each["sha256"],
        )
        for each in found["sites"]
    )
    parts = [
        f"<h1>{title}</h1>",
        f"<p>{text(say('consortium_text'))}</p>",
        table(head, sites, say("who")),
        *(_study_part(study, say) for study in found["studies"]),
    ]
    tag = "zh-Hans" if language == "zh" else "en"
    return (
        f'<!doctype html>\n<html lang="{tag}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _study_part(study: Report, say: Texts) -> str:
    unit = study["unit"]
    parts = [
        f"<h2>{text(study['name'])}</h2>",
        f"<p>{text(study['purpose'])}<br>{code(study['digest'])}</p>",
        f"<p>{text(say('unit'))}: {text(say.unit(unit))}, "
        f"{text(say.adjacency(unit))}; {text(say('each_site'))}</p>",
        table(_head(say), _rows(study["sites"], say), study["name"]),
    ]
    told = study["across_sites"]
    if told is not None:
        sums = {name: number(told[name], say) for name in ("epsilon", "delta")}
        parts.append(f"<p>{text(say('across', sites=told['max_sites'], **sums))}</p>")
    return "".join(parts)


def _head(say: Texts) -> list[str]:
    names = ("site", "accepted", "turns", "order")
    return [say(name) for name in names]


def _rows(lines: Iterable[Report], say: Texts) -> Iterable[tuple[object, ...]]:
    for line in lines:
        promise = f"{number(line['epsilon'], say)}, {line['delta']:g}"
        if line["simulated"]:
            promise += f" ({say('simulated')})"
        turns = f"{line['num_turns_spent']} / {line['num_turns']}"
        yield line["site"], promise, turns, line["approval"][:16]
