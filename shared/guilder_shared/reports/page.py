"""A report as one HTML page that needs nothing else: no script, font, image or link.

Shows what the signed JSON beside it says; only the JSON can be verified.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from guilder_shared.reports.build import Report

DASH = "\N{EN DASH}"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd;
         vertical-align: top; overflow-wrap: anywhere; }
code { font-size: .85em; }
.promise { border-left: 4px solid #2a6; padding: .5rem 1rem; }
.none { border-color: #c22; background: #fdf0f0; }
"""


def page(report: Report) -> str:
    """The whole page; every value is escaped."""
    site = report["site"]
    parts = [
        f"<h1>Privacy report of {_text(site['name'])}</h1>",
        f"<p>As of {_text(report['as_of'])}; ledger entry "
        f"{report['ledger']['head']['seq']}. Signed by the key "
        f"<code>{_text(site['public_key'])}</code>. Check it with "
        f"<code>guilder privacy verify {_text(site['name'])}.report.json</code>.</p>",
        *(_study(study) for study in report["studies"]),
        "<h2>Budgets</h2>",
        _budgets(report["budgets"]),
        "<h2>Refused</h2>",
        _refusals(report["refusals"]),
        "<h2>What is not protected</h2>",
        "<ul>" + "".join(f"<li>{_text(t)}</li>" for t in report["not_protected"]),
        "</ul>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Privacy report of {_text(site['name'])}</title>"
        f"<style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _study(study: Report) -> str:
    guarantee, figures = study["guarantee"], study["totals"]
    prefix = figures["prefix"]
    sound = guarantee["protected"] and not guarantee["simulated"]
    rows = [
        ("Purpose", study["purpose"]),
        ("Study", f"{study['name']}, SHA-256 {study['digest']}"),
        ("Run", f"{study['run_id']} of {study['server']}"),
        ("Dataset", study["dataset"]),
        ("Accepted at", study["accepted_at"]),
        ("Unit and adjacency", f"{guarantee['unit']}: {guarantee['adjacency']}"),
        *([("Not the same as", guarantee["caveat"])] if "caveat" in guarantee else []),
        *_across_sites(guarantee),
        ("Epsilon, accepted", f"{_number(figures['epsilon'])} for {figures['covers']}"),
        ("Epsilon, recomputed", _number(figures["recomputed_epsilon"])),
        ("Delta", _number(figures["delta"])),
        ("Epsilon, prefix", f"{_number(prefix['epsilon'])} for {prefix['covers']}"),
        ("Mechanism", f"{guarantee['mechanism']}, sampling: {guarantee['sampling']}"),
        ("Protected against", guarantee["against"]),
        *(("Event of one turn", _event(line["event"])) for line in study["events"]),
        *(
            ("Turns", f"{e['num_turns_spent']} of {e['num_turns']} spent")
            for e in study["events"]
        ),
    ]
    css = "promise" if sound else "promise none"
    return (
        f"<h2>{_text(study['name'])}</h2>"
        f'<p class="{css}">{_text(guarantee["sentence"])}</p>'
        + _table((), rows)
        + _releases(study["releases"])
    )


def _across_sites(guarantee: Report) -> list[tuple[str, str]]:
    """What all sites together cost a person, if the study says at how many it is."""
    told = guarantee.get("across_sites")
    if told is None:
        return []
    epsilon, delta = _number(told["epsilon"]), _number(told["delta"])
    words = (
        f"epsilon {epsilon} and delta {delta} at most for a person with rows at "
        f"{told['max_sites']} sites; that it is at no more is the study's word"
    )
    return [("Over all sites", words)]


def _releases(releases: Sequence[Report]) -> str:
    head = ("Turn", "Charged at", "Started", "Sealed at", "SHA-256 of what may leave")
    return _table(
        head,
        (
            (
                release["turn_no"],
                release["charged_at"],
                release["started"],
                release["sealed_at"] or ("given up" if release["given_up"] else DASH),
                release["sha256"] or DASH,
            )
            for release in releases
        ),
    )


def _budgets(budgets: Sequence[Report]) -> str:
    head = ("Budget", "Datasets", "", "Limit", "Spent", "Reserved", "Left")
    names = ("limit", "spent", "reserved", "left")
    return _table(
        head,
        (
            (
                budget["name"],
                ", ".join(budget["datasets"]),
                of,
                *(_number(budget[of][name]) for name in names),
            )
            for budget in budgets
            for of in ("epsilon", "delta")
        ),
    ) + _by_unit(budgets)


def _by_unit(budgets: Sequence[Report]) -> str:
    """What each kind of unit has cost, where not all studies protect records."""
    rows = [
        (budget["name"], unit, _number(cost["epsilon"]), _number(cost["delta"]))
        for budget in budgets
        for unit, cost in budget.get("by_unit", {}).items()
    ]
    if not rows:
        return ""
    head = ("Budget", "Unit", "Epsilon spent and reserved", "Delta")
    told = "<p>Studies that protect different units: their figures do not add up.</p>"
    return told + _table(head, rows)


def _refusals(refusals: Sequence[Report]) -> str:
    if not refusals:
        return "<p>No study was refused for lack of budget.</p>"
    head = ("At", "Study", "Run", "Needed", "Left", "Budget")
    names = ("time", "study_name", "run_id", "epsilon", "left", "budget")
    return _table(head, ([row[name] for name in names] for row in refusals))


def _event(event: dict[str, Any]) -> str:
    """An event as words: 25 times poisson-sampled (0.01) gaussian (0.8)."""
    inner = f" {_event(event['of'])}" if "of" in event else ""
    kind = event["event"]
    if kind == "self-composed":
        return f"{event['count']} times{inner}"
    numbers = [f"{v:g}" for k, v in event.items() if k not in ("event", "of")]
    return f"{kind} ({', '.join(numbers)}){inner}" if numbers else f"{kind}{inner}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table>{f'<tr>{top}</tr>' if top else ''}{body}</table>"


def _number(value: float | None) -> str:
    return "none: unprotected" if value is None else f"{value:g}"


def _text(value: object) -> str:
    return escape(DASH if value is None else str(value))
