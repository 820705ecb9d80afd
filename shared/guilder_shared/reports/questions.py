"""The annex's questions, each with its answer: rows of two cells, block by block.

No question is left out: what a mechanism does not have does not apply, and what only
the controllers know is said to be theirs. Block C's tables are in `annex.py`.
"""

from guilder_shared.reports.approvals import fingerprint
from guilder_shared.reports.build import Report
from guilder_shared.reports.facts import Facts, mu
from guilder_shared.reports.marks import DASH, number
from guilder_shared.reports.texts import Texts

Rows = list[tuple[str, object]]


def identity(report: Report, facts: Facts, say: Texts) -> Rows:
    """Block A, of the whole report."""
    site, head = report["site"], report["ledger"]["head"]
    known = {"schema": report["schema"], "entry": head["seq"], "hash": head["hash"]}
    times = {"as_of": report["as_of"], "began": facts.began}
    return [
        (say("report_id"), say("report_id_is", **known)),
        (say("covers"), say("covers_is", **times)),
        (say("site_id"), f"{site['name']}: {site['public_key']}"),
        (
            say("parties"),
            say("parties_is", servers=", ".join(facts.servers) or DASH),
        ),
        (
            say("contact"),
            say("contact_is", key=report["officer"]["fingerprint"]),
        ),
        (say("legal"), say("legal_is")),
    ]


def study_identity(study: Report, facts: Facts, say: Texts) -> Rows:
    """Block A, of one study."""
    order, software = study["approval"], study.get("software")
    granted = say(
        "granted_is",
        say=order["say"],
        name=order["name"],
        at=order["admitted_at"],
        key=order["officer"],
        order=order["order_id"],
    )
    rows: Rows = [
        (say("purpose"), study["purpose"]),
        (say("recipe"), facts.recipe(study)),
        (say("model"), _model(study, facts, say)),
        (say("digest"), study["digest"]),
        (say("run"), f"{study['run_id']}, {study['server']}"),
        (say("dataset"), study["dataset"]),
        (say("categories"), _categories(study, facts) or say("not_stated")),
        (say("subjects"), _subjects(study, facts, say)),
        (say("accepted_at"), study["accepted_at"]),
        (say("granted"), granted),
        (
            say("installed"),
            say("not_stated") if software is None else software["installed"],
        ),
    ]
    if software is not None and (code := software["recipe"]) is not None:
        told = f"{code['package']} {code['version']}, wheel SHA-256 {code['sha256']}"
        rows.append((say("code"), told))
    return rows


def _model(study: Report, facts: Facts, say: Texts) -> str:
    if facts.part(study, "statistics"):
        return say("model_none")
    name = facts.part(study, "model").get("name")
    return say("not_stated") if name is None else say("model_is", name=name)


def _categories(study: Report, facts: Facts) -> str:
    """The columns that a study may read, by name."""
    data = facts.part(study, "data")
    single = (data.get(name) for name in ("image", "text", "target", "person"))
    names = [*data.get("columns", {}), *(str(name) for name in single if name)]
    return ", ".join(dict.fromkeys(names))


def _subjects(study: Report, facts: Facts, say: Texts) -> str:
    rows, persons = facts.size(study)
    if rows is None:
        return say("not_stated")
    if persons is None:
        return say("subjects_rows", rows=rows)
    return say("subjects_are", rows=rows, persons=persons)


def guarantee(study: Report, facts: Facts, say: Texts) -> Rows:
    """Block B, of one study: what it promises, to whom, by which mechanism."""
    told, unit = study["guarantee"], study["guarantee"]["unit"]
    safe, nothing = told["protected"], say("none")
    gauss = mu(study)
    gdp = say("gdp_none") if gauss is None else say("gdp_is", mu=f"{gauss:g}")
    asked = facts.part(study, "statistics")
    release = say(
        "release_once" if asked else "release_turns",
        num=study["events"][0]["num_turns"],
    )
    rows: Rows = [
        (
            say("flavour"),
            say("flavour_is", unit=say.unit(unit)) if safe else nothing,
        ),
        (say("unit"), f"{say.unit(unit)}: {say.adjacency(unit)}"),
        (say("unit_key"), _key(unit, study, facts, say)),
        (say("cap"), _cap(unit, study, facts, say)),
        (say("size"), _size(unit, study, facts, say) if safe else nothing),
        (say("mechanism"), f"{told['mechanism']}; {say.sampling(told['sampling'])}"),
        (say("noise"), told["noise_multiplier"]),
        (say("clip_norm"), told["clip_norm"]),
        (say("rate"), told["sample_rate"]),
        (say("deployment"), say("deployment_is" if safe else "deployment_none")),
        (say("against"), say("against_all") if safe else nothing),
        (say("release"), release),
        (say("conversion"), say("conversion_is") if safe else nothing),
        (say("recomputed"), number(study["totals"]["recomputed_epsilon"], say)),
        (say("gdp"), gdp if safe else nothing),
    ]
    return rows + _beside(study, say)


def _beside(study: Report, say: Texts) -> Rows:
    """Figures for comparison: other accountants, other deltas, what a guess gains."""
    rows: Rows = []
    if "evidence" in study["totals"]:
        found = study["totals"]["evidence"]
        told = ", ".join(
            f"{name.upper()} {number(found[name], say) if found[name] else DASH}"
            for name in ("pld", "prv", "rdp")
        )
        rows.append((say("accountants"), f"{told} (delta {found['delta']:g})"))
    if study["curve"]:
        told = "; ".join(f"({p['epsilon']:g}, {p['delta']:g})" for p in study["curve"])
        rows.append((say("curve"), f"(epsilon, delta): {told}"))
        told = "; ".join(
            say("belief", before=f"{b['before']:.0%}", at_most=f"{b['at_most']:.1%}")
            for b in study["beliefs"]
        )
        rows.append((say("beliefs"), told))
    return rows


def _key(unit: str, study: Report, facts: Facts, say: Texts) -> str:
    if unit != "person":
        return say("key_site" if unit == "site" else "key_record")
    column = facts.part(study, "data").get("person")
    return say("not_stated") if column is None else say("key_person", column=column)


def _cap(unit: str, study: Report, facts: Facts, say: Texts) -> str:
    if unit != "person":
        return say("cap_none")
    if facts.part(study, "statistics"):
        return say("cap_counted")
    return say("cap_person", num=facts.part(study, "privacy").get("max_records"))


def _size(unit: str, study: Report, facts: Facts, say: Texts) -> str:
    rows, persons = facts.size(study)
    num = persons if unit == "person" else rows
    if num is None:
        return say("not_stated")
    return say("size_is", num=num, share=f"{num * study['totals']['delta']:.2g}")


def accounting(study: Report, facts: Facts, say: Texts) -> Rows:
    """What block C asks of one study in words."""
    found, releases = study["totals"].get("evidence"), study["releases"]
    versions = {} if found is None else found.get("versions", {})
    told = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    asked = facts.part(study, "statistics").get("ask", {})
    given_up = sum(bool(release["given_up"]) for release in releases)
    again = sum(release["started"] > 1 for release in releases)
    start = facts.part(study, "model").get("pretrained")
    charged = facts.part(study, "evaluation").get("on") == "charged"
    safe = study["guarantee"]["protected"]
    return [
        (
            say("accountant"),
            say("accountant_is", versions=told or DASH) if safe else say("none"),
        ),
        (say("bounds"), say("bounds_are") if safe else say("none")),
        (say("failed"), say("failed_are", num=given_up, again=again)),
        (
            say("measured"),
            say("measured_charged" if charged else "measured_elsewhere"),
        ),
        (say("tuned"), say("tuned_is")),
        (
            say("statistics"),
            say("statistics_charged", names=", ".join(asked))
            if asked
            else say("statistics_none"),
        ),
        (
            say("pretrained"),
            say("pretrained_is", sha256=start) if start else say("pretrained_none"),
        ),
    ]


def fixed(names: dict[str, str], say: Texts) -> Rows:
    """Questions whose answer is the same in every report."""
    return [(say(question), say(answer)) for question, answer in names.items()]


OUTSIDE = {"preparing": "preparing_is", "overlap": "overlap_is", "public": "public_is"}
IMPLEMENTATION = {
    "generator": "generator_is",
    "floats": "floats_are",
    "seeds": "seeds_are",
    "secure_sum": "secure_sum_none",
    "links": "links_are",
    "access": "access_is",
    "channels": "channels_are",
    "storage": "storage_is",
    "evidence": "evidence_is",
}
UTILITY = {"metric": "elsewhere", "groups": "elsewhere", "choice": "choice_is"}


def integrity(report: Report, say: Texts) -> Rows:
    """Block H."""
    head, key = report["ledger"]["head"], report["site"]["public_key"]
    command = f"guilder privacy verify {report['site']['name']}.report.json"
    rows: Rows = [
        (say("chain"), say("integrity", entry=head["seq"], hash=head["hash"])),
        (say("signed"), say("signed_is", key=fingerprint(key))),
        (say("signed_at"), say("signed_at_is", as_of=report["as_of"])),
        (say("previous"), say("previous_is")),
        (say("command"), command),
    ]
    names = {"forms": "forms_are", "tiers": "tiers_are", "shared": "shared_is"}
    return rows + fixed(names, say)
