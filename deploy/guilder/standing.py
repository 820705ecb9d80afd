"""What stands at a site: budgets with what is left, public sizes, what may run.

For `guilder privacy budget`. It reads the ledger and site.toml, no row, and writes
nothing.
"""

from typing import Any

from guilder_client import terms
from guilder_client.settings import SiteFile
from guilder_shared.privacy.ledger import Ledger, Totals


def of(settings: SiteFile, ledger: Ledger) -> dict[str, Any]:
    """Everything that orders say and studies took, as JSON.

    Args:
        settings: Of the site, for what in it nobody signed.
        ledger: Of the site, for reading.
    """
    return {
        "site": ledger.site,
        "officer": ledger.officer,
        "budgets": [_totals(each) for each in ledger.totals().values()],
        "public_sizes": {
            name: {"rows": size.rows, "persons": size.persons}
            for name, size in ledger.sizes().items()
        },
        "permits": [
            {"order_id": each.order.order_id, **each.order.content}
            for each in ledger.permissions()
        ],
        "excused": [w.server for w in ledger.witnesses().values() if w.excused],
        "not_signed": list(terms.differences(settings, ledger)),
    }


def _totals(each: Totals) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": each.budget.name,
        "datasets": list(each.budget.datasets),
        "unit": each.budget.unit,
        "epsilon": {
            "limit": each.budget.epsilon,
            "spent": each.spent_epsilon,
            "reserved": each.reserved_epsilon,
            "left": each.left_epsilon,
        },
        "delta": {
            "limit": each.budget.delta / 2,
            "spent": each.spent_delta,
            "reserved": each.reserved_delta,
            "left": each.left_delta,
        },
        "period": None,
    }
    if each.period is not None:
        found["period"] = {
            "begins": each.period.begins,
            "ends": each.period.ends,
            "limit": each.period.epsilon,
            "taken": each.period.taken_epsilon,
            "left": each.period.left_epsilon,
        }
    return found


def text(found: dict[str, Any]) -> str:
    """What `of` found, a line for each thing."""
    lines = [f"site {found['site']}, officer {found['officer'][:16]}…"]
    for each in found["budgets"]:
        lines.append(_budget_text(each))
    for name, size in found["public_sizes"].items():
        persons = "" if size["persons"] is None else f", {size['persons']} persons"
        lines.append(f"public size of {name}: {size['rows']} rows{persons}")
    for each in found["permits"]:
        name = each["study_name"] if each["say"] == "approve" else each["name"]
        until = each["expires"] or "revoked"
        lines.append(f"{each['say']} {name!r} until {until}: order {each['order_id']}")
    lines += [f"not asked, by the officer's order: {s}" for s in found["excused"]]
    lines += [f"NOT SIGNED: {text}" for text in found["not_signed"]]
    return "\n".join(lines)


def _budget_text(each: dict[str, Any]) -> str:
    epsilon, delta, period = each["epsilon"], each["delta"], each["period"]
    unit = each["unit"] or "any unit"
    text = (
        f"budget {each['name']} ({', '.join(each['datasets'])}; {unit}): epsilon "
        f"{epsilon['spent']:g} spent, {epsilon['reserved']:g} reserved, "
        f"{epsilon['left']:g} left of {epsilon['limit']:g}; delta "
        f"{delta['left']:g} left of {delta['limit']:g}"
    )
    if period is not None:
        text += (
            f"; {period['left']:g} of {period['limit']:g} left in the period to "
            f"{period['ends']}"
        )
    return text
