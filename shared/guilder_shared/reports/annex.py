"""The annex of a report's page: blocks A to F and H, for those who check.

Block letters follow the registry of deployments and NIST SP 800-226 as gathered for
this project; G (necessity, residual risk) is the controller's to write.
"""

from collections.abc import Sequence
from typing import Any

from guilder_shared.reports import pictures, questions
from guilder_shared.reports.build import Report
from guilder_shared.reports.facts import Facts
from guilder_shared.reports.marks import DASH, bullets, number, table, text
from guilder_shared.reports.texts import Texts


def annex(report: Report, say: Texts) -> str:
    """All blocks, one after the other."""
    facts = Facts(report)
    blocks = [
        ("a", _identity(report, facts, say)),
        ("b", _guarantees(report, facts, say)),
        ("c", _accounting(report, facts, say)),
        ("d", _outside(report, say)),
        ("e", _fixed(questions.IMPLEMENTATION, "e", say)),
        ("f", _fixed(questions.UTILITY, "f", say)),
        ("h", table((), questions.integrity(report, say), say("h"))),
    ]
    return "\n".join(
        f'<section id="block-{key}"><h2>{text(say(key))}</h2>\n{body}</section>'
        for key, body in blocks
    )


def promise(study: Report, say: Texts) -> str:
    """What one study promises, in one paragraph."""
    guarantee = study["guarantee"]
    parts = [say("simulated")] if guarantee["simulated"] else []
    if guarantee["protected"]:
        unit = guarantee["unit"]
        parts.append(
            say(
                "promise",
                who=say.present(unit),
                epsilon=number(guarantee["epsilon"], say),
                delta=number(guarantee["delta"], say),
                adjacency=say.adjacency(unit),
            )
        )
        if "caveat" in guarantee:
            parts.append(say("caveat", unit=say.unit(unit)))
    else:
        parts.append(say("unprotected"))
    told = guarantee.get("across_sites")
    if told is not None:
        sums = {name: number(told[name], say) for name in ("epsilon", "delta")}
        parts.append(say("across", sites=told["max_sites"], **sums))
    sound = guarantee["protected"] and not guarantee["simulated"]
    css = "promise" if sound else "promise none"
    name = f"<strong>{text(study['name'])}</strong>: "
    return f'<p class="{css}">{name}{text(" ".join(parts))}</p>'


def _identity(report: Report, facts: Facts, say: Texts) -> str:
    told = table((), questions.identity(report, facts, say), say("a"))
    for study in report["studies"]:
        rows = questions.study_identity(study, facts, say)
        told += f"<h3>{text(study['name'])}</h3>" + table((), rows, study["name"])
    return told


def _guarantees(report: Report, facts: Facts, say: Texts) -> str:
    told = [_guarantee(study, facts, say) for study in report["studies"]]
    return "".join(told) or f"<p>{text(say('nobody'))}</p>"


def _guarantee(study: Report, facts: Facts, say: Texts) -> str:
    rows = questions.guarantee(study, facts, say)
    return promise(study, say) + table((), rows, f"{study['name']}: {say('b')}")


def _outside(report: Report, say: Texts) -> str:
    seen = say.not_protected(report["not_protected"])
    told = f"<h3>{text(say('seen'))}</h3>{bullets(seen)}"
    return told + _fixed(questions.OUTSIDE, "d", say)


def _fixed(names: dict[str, str], block: str, say: Texts) -> str:
    return table((), questions.fixed(names, say), say(block))


def _accounting(report: Report, facts: Facts, say: Texts) -> str:
    parts = [_charges(study, facts, say) for study in report["studies"]]
    parts += [_drawn(report["budgets"], say)]
    parts += [_history(budget, say) for budget in report["budgets"]]
    parts += [
        f"<h3>{text(say('refused'))}</h3>",
        _refusals(report["refusals"], say),
        f"<h3>{text(say('orders'))}</h3>",
        _orders(report["orders"], say),
    ]
    return "".join(parts)


def _charges(study: Report, facts: Facts, say: Texts) -> str:
    prefix, (line,) = study["totals"]["prefix"], study["events"]
    rows: questions.Rows = [
        (say("event"), event(line["event"])),
        (say("turns"), f"{line['num_turns_spent']} / {line['num_turns']}"),
        (say("prefix"), number(prefix["epsilon"], say)),
        *questions.accounting(study, facts, say),
    ]
    names = ("turn", "charged_at", "started", "sealed_at", "sha256")
    releases = (
        (
            release["turn_no"],
            release["charged_at"],
            release["started"],
            release["sealed_at"] or (say("given_up") if release["given_up"] else DASH),
            release["sha256"],
        )
        for release in study["releases"]
    )
    label = f"{study['name']}: {say('c')}"
    told = f"<h3>{text(study['name'])}</h3>" + table((), rows, label)
    if not study["releases"]:
        return told
    return told + table([say(name) for name in names], releases, label)


def _drawn(budgets: Sequence[Report], say: Texts) -> str:
    if not budgets:
        return f"<p>{text(say('no_budget'))}</p>"
    rows = []
    for budget in budgets:
        told = budget["epsilon"]
        share = (told["spent"] + told["reserved"]) / told["limit"]
        parts = [f"{told[name]:g}" for name in ("limit", "spent", "reserved", "left")]
        delta = f"{budget['delta_of_all_filters']:g}"
        unit = budget["unit"]
        whose = say("any_unit") if unit is None else say.unit(unit)
        rows.append((budget["name"], whose, *parts, delta, f"{share:.1%}"))
    names = ("most", "taken", "set_aside", "left")
    head = [say("drawn"), say("unit"), *(say(name) for name in names), "delta"]
    label = say("drawn")
    return f"<h3>{text(label)}</h3>" + table([*head, say("percent")], rows, label)


def _history(budget: Report, say: Texts) -> str:
    points, by_unit = budget["history"], budget.get("by_unit", {})
    if not points:
        return ""
    title = f"{budget['name']}: {say('history')}"
    rows = (
        (
            at,
            point["time"],
            point["study"],
            f"{point['sum']:g}",
            None if point["composed"] is None else f"{point['composed']:g}",
        )
        for at, point in enumerate(points, 1)
    )
    head = ("#", say("time"), say("study"), say("sum"), say("composed"))
    told = (
        f"<h3>{text(title)}</h3><p>{text(say('history_text'))}</p>"
        + pictures.steps(points, budget["epsilon"]["limit"], title)
        + table(head, rows, title)
    )
    if by_unit:
        costs = (
            (say.unit(unit), number(cost["epsilon"], say), number(cost["delta"], say))
            for unit, cost in by_unit.items()
        )
        told += f"<p>{text(say('by_unit'))}</p>"
        told += table((say("unit"), "epsilon", "delta"), costs, say("by_unit"))
    return told


def _refusals(refusals: Sequence[Report], say: Texts) -> str:
    if not refusals:
        return f"<p>{text(say('no_refusal'))}</p>"
    head = [say(k) for k in ("time", "study", "needed", "unit", "reason", "budget")]
    rows = (
        (
            row["time"],
            row["study_name"],
            f"{row['epsilon']:g}, {row['delta']:g}",
            say.unit(row["unit"]),
            row["reason"],
            None if row["budget"] is None else f"{row['budget']} ({row['left']:g})",
        )
        for row in refusals
    )
    return table(head, rows, say("refused"))


def _orders(orders: Sequence[Report], say: Texts) -> str:
    names = ("admitted_at", "say", "name", "order", "until", "revoked_at")
    rows = (
        (
            order["admitted_at"],
            order["say"],
            order["name"],
            order["order_id"],
            order["expires"],
            order["revoked_at"],
        )
        for order in orders
    )
    return table([say(name) for name in names], rows, say("orders"))


def event(one: dict[str, Any]) -> str:
    """An event as words: 25 times poisson-sampled (0.01) gaussian (0.8)."""
    if one["event"] == "parallel":
        return "parallel: " + " | ".join(event(part) for part in one["of"])
    inner = f" {event(one['of'])}" if "of" in one else ""
    kind = one["event"]
    if kind == "self-composed":
        return f"{one['count']} times{inner}"
    numbers = [f"{v:g}" for k, v in one.items() if k not in ("event", "of")]
    return f"{kind} ({', '.join(numbers)}){inner}" if numbers else f"{kind}{inner}"
