"""A report as one HTML page that needs nothing else: no script, font, image or link.

Shows what the signed JSON beside it says; only the JSON can be verified. Page one alone
answers who, whose presence is hidden, what is spent and left, who approved it, what is
not protected and how to verify; `annex.py` has the rest.
"""

from guilder_shared.reports import annex, pictures
from guilder_shared.reports.approvals import fingerprint
from guilder_shared.reports.build import Report
from guilder_shared.reports.marks import bullets, code, number, table, text
from guilder_shared.reports.texts import Texts

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 1.6rem 0 .3rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .3rem; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #767676;
         vertical-align: top; overflow-wrap: anywhere; }
code { font-size: .85em; overflow-wrap: anywhere; }
.promise { border-left: 4px solid #1b1b1b; padding: .3rem 1rem; }
.none { border: 3px double #1b1b1b; font-weight: bold; }
.annex { break-before: page; }
@media print { body { margin: 0; max-width: none; font-size: 10pt; }
               tr, svg, .promise { break-inside: avoid; } }
"""


def page(report: Report, language: str = "en") -> str:
    """The whole page; every value is escaped.

    Args:
        report: From `build`.
        language: "en" or "zh".
    """
    say = Texts(language)
    parts = [
        section(say("who"), _who(report, say)),
        section(say("hidden"), _hidden(report, say)),
        section(say("spent"), spent(report, say)),
        section(say("approved"), approved(report, say)),
        section(say("not_protected"), _not_protected(report, say)),
        section(say("verify"), _verify(report, say)),
        '<div class="annex">',
        f"<h1>{text(say('annex'))}</h1>",
        annex.annex(report, say),
        "</div>",
    ]
    return document(say("title", site=report["site"]["name"]), parts, language)


def document(title: str, parts: list[str], language: str) -> str:
    """The file: its head, its title and these parts."""
    tag = "zh-Hans" if language == "zh" else "en"
    name = text(title)
    return (
        f'<!doctype html>\n<html lang="{tag}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{STYLE}</style></head><body><main>\n"
        + "\n".join([f"<h1>{name}</h1>", *parts])
        + "\n</main></body></html>\n"
    )


def section(title: str, body: str) -> str:
    """One question of page one, with its answer."""
    return f"<h2>{text(title)}</h2>\n{body}"


def _who(report: Report, say: Texts) -> str:
    told = say(
        "who_text",
        site="\0",
        as_of=report["as_of"],
        entry=report["ledger"]["head"]["seq"],
        key="\1",
        officer="\2",
    )
    site = report["site"]
    return (
        "<p>"
        + text(told)
        .replace("\0", f"<strong>{text(site['name'])}</strong>")
        .replace("\1", code(fingerprint(site["public_key"])))
        .replace("\2", code(report["officer"]["fingerprint"]))
        + "</p>"
    )


def _hidden(report: Report, say: Texts) -> str:
    if not report["studies"]:
        return f"<p>{text(say('nobody'))}</p>"
    return "".join(annex.promise(study, say) for study in report["studies"])


def spent(report: Report, say: Texts) -> str:
    """Each budget: its lifetime, its period, a gauge."""
    if not report["budgets"]:
        return f"<p>{text(say('no_budget'))}</p>"
    return "".join(_budget(budget, say) for budget in report["budgets"])


def _budget(budget: Report, say: Texts) -> str:
    epsilon = budget["epsilon"]
    unit = budget["unit"]
    told = say(
        "budget_text",
        name=budget["name"],
        datasets=", ".join(budget["datasets"]),
        spent=number(epsilon["spent"], say),
        reserved=number(epsilon["reserved"], say),
        left=number(epsilon["left"], say),
        limit=number(epsilon["limit"], say),
        delta=number(budget["delta_of_all_filters"], say),
        unit=say("any_unit") if unit is None else say.unit(unit),
    )
    parts, label = [f"<p>{text(told)}</p>"], told
    period = budget["period"]
    if period is not None:
        told = say(
            "period_text",
            begins=period["begins"],
            ends=period["ends"],
            limit=f"{period['epsilon']:g}",
            taken=f"{period['taken_epsilon']:g}",
            left=f"{period['left_epsilon']:g}",
        )
        parts.append(f"<p>{text(told)}</p>")
    drawn = (epsilon["spent"], epsilon["reserved"], epsilon["limit"])
    parts.append(pictures.gauge(*drawn, label))
    return "".join(parts)


def approved(report: Report, say: Texts) -> str:
    """Each study's order, and whose key signed it."""
    if not report["studies"]:
        return f"<p>{text(say('nobody'))}</p>"
    head = (say("study"), say("order"), say("officer"), say("until"))
    rows = (
        (
            study["name"],
            f"{study['approval']['say']} {study['approval']['name']} "
            f"({study['approval']['order_id'][:16]})",
            study["approval"]["officer"],
            study["approval"]["expires"] or say("never"),
        )
        for study in report["studies"]
    )
    return table(head, rows, say("approved"))


def _not_protected(report: Report, say: Texts) -> str:
    return listed(report, say) + silences(report, say)


def listed(report: Report, say: Texts) -> str:
    """What an observer sees although nothing of it is charged."""
    return bullets(say.not_protected(report["not_protected"]))


def silences(report: Report, say: Texts) -> str:
    """Who would not have noticed an old ledger, and when; or that there is nobody."""
    told = []
    for each in report.get("silences", ()):
        server = each["server"]
        for excuse in each["excused"]:
            ends = [end for end in (excuse["expires"], excuse["revoked_at"]) if end]
            until = min(ends, default=say("revoking"))
            order, since = excuse["order_id"][:16], excuse["since"]
            told.append(
                say("excused", server=server, order=order, since=since, until=until)
            )
        for lost in each["forgot"]:
            left = say("head", number=lost["remembered"])
            facts = {"at": lost["at"], "signed": lost["signed"]}
            facts["remembered"] = left if lost["remembered"] else say("nothing")
            told.append(say("forgot", server=server, **facts))
    return "".join(f"<p>{text(line)}</p>" for line in told or [say("all_remember")])


def _verify(report: Report, say: Texts) -> str:
    file = f"{report['site']['name']}.report.json"
    told = text(say("verify_text", file="\0", command="\1"))
    command = code(f"guilder privacy verify {file}")
    return "<p>" + told.replace("\0", code(file)).replace("\1", command) + "</p>"
