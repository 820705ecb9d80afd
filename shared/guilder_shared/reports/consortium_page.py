"""Several sites' reports as one HTML page, which asks the same six questions of all.

Shows what the file beside it holds; only the file can be verified. Like a site's page
it needs nothing else, and every value is escaped.
"""

from collections.abc import Callable, Iterable

from guilder_shared.reports import page as of_site
from guilder_shared.reports.approvals import fingerprint
from guilder_shared.reports.build import Report
from guilder_shared.reports.marks import code, number, table, text
from guilder_shared.reports.texts import Texts


def page(found: Report, language: str = "en", *, file: str = "consortium.json") -> str:
    """The whole page.

    Args:
        found: From `consortium.combine`.
        language: "en" or "zh".
        file: Name of the file beside it, which `verify` takes.
    """
    say, reports = Texts(language), found["reports"]
    each = _of_each(reports, say)
    parts = [
        of_site.section(say("who"), _who(found, say)),
        of_site.section(say("hidden"), _hidden(found["studies"], say)),
        of_site.section(say("spent"), each(of_site.spent)),
        of_site.section(say("approved"), each(of_site.approved)),
        of_site.section(
            say("not_protected"),
            of_site.listed(reports[0], say) + each(of_site.silences),
        ),
        of_site.section(say("verify"), _verify(file, say)),
    ]
    title = say("consortium", num=len(found["sites"]))
    return of_site.document(title, parts, language)


def _of_each(
    reports: Iterable[Report], say: Texts
) -> Callable[[Callable[[Report, Texts], str]], str]:
    """Gives a part of a site's page for every site, under its name."""

    def each(part: Callable[[Report, Texts], str]) -> str:
        return "".join(
            f"<h3>{text(report['site']['name'])}</h3>" + part(report, say)
            for report in reports
        )

    return each


def _who(found: Report, say: Texts) -> str:
    head = (say("site"), say("key"), say("as_of"), say("entry"), say("file"))
    rows = (
        (
            each["site"],
            fingerprint(each["public_key"]),
            each["as_of"],
            each["head"]["seq"],
            each["sha256"],
        )
        for each in found["sites"]
    )
    told = f"<p>{text(say('consortium_text'))}</p>"
    return told + table(head, rows, say("who"))


def _hidden(studies: Iterable[Report], say: Texts) -> str:
    parts = [_study(study, say) for study in studies]
    return "".join(parts) or f"<p>{text(say('nobody'))}</p>"


def _study(study: Report, say: Texts) -> str:
    unit = study["unit"]
    parts = [
        f"<h3>{text(study['name'])}</h3>",
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


def _verify(file: str, say: Texts) -> str:
    told = text(say("verify_all", file="\0", command="\1"))
    command = code(f"guilder privacy verify {file}")
    return "<p>" + told.replace("\0", code(file)).replace("\1", command) + "</p>"
