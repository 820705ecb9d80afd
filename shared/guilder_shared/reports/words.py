"""The sentences of a report: what is promised, in words, and what is not.

Computed from a grant's public facts; knows no numbers but those it is given.
"""

from typing import Any

from guilder_shared.privacy.ledger.grants import Grant

SIMULATED = (
    "SIMULATED: NO GUARANTEE. The noise came from a known seed on the machine that "
    "holds the data."
)
UNPROTECTED = (
    "UNPROTECTED. No noise was added: the updates that left may reveal rows of this "
    "site, and no epsilon describes how much."
)
WHOLE = "the accepted study: all its declared turns, spare turns included"
PREFIX = (
    "the turns spent so far only; a figure for comparison, no guarantee, because "
    "stopping may itself have depended on the data"
)

# What an observer sees although nothing of it is charged (the promise is about what
# is computed from rows).
NOT_PROTECTED = (
    "That this site took part, in which rounds, and when each turn began and ended.",
    "That a study was offered, accepted or refused, and that a turn failed or was "
    "started again.",
    "The public size and every other constant in the study and the site's file.",
    "The same unit's rows at other sites: each site accounts for its own copy, and "
    "the losses of all sites that hold it add up.",
    "Facts about the population that a model learns with or without any one unit.",
    "Anything done with the data outside Guilder.",
    "An old copy of this ledger put back in place of the newest one, if every server "
    "that remembers more of it agrees or the officer excused it: the chain shows what "
    "was written, not that nothing newer was cut off. Stock Flower's server remembers "
    "nothing.",
)


ADJACENCY = {
    "record": "add or remove one record",
    "person": "add or remove all rows of one person at this site",
    "site": "all rows of this site against none of them; that it takes part is public",
}
PRESENT = {
    "person": "any one person had rows in its data or not",
    "site": "its data held all its rows or none",
}
COUNTED = {  # of statistics, which draw nobody and repeat no step
    "record": "every row, counted once",
    "person": "every person, counted once, as the mean of all its rows",
}
CAVEAT = (
    "Some rows of a {unit}, while its others stay, may turn its contribution around: "
    "they are hidden with at most twice this epsilon, at delta times 1 + e^epsilon. "
    "What other studies cost by record bounds no {unit}, and does not add up with it."
)


def adjacency(unit: str) -> str:
    """Which two states of the data are told apart only as epsilon allows."""
    return ADJACENCY.get(unit, f"add or remove one {unit}")


def unit_of(grant: Grant) -> str:
    """Whose presence a study hides, as the site accepted it."""
    return grant.unit


def guarantee(grant: Grant) -> dict[str, Any]:
    """What one study promises at this site, as data and as one sentence.

    The sentence never names epsilon without unit, adjacency, delta and scope.
    """
    study = study_of(grant)
    privacy, training = study.get("privacy", {}), study.get("training", {})
    unit = unit_of(grant)
    rate = training.get("sample_rate")
    sampling = _sampling(unit, rate, privacy.get("max_records"))
    if study.get("statistics"):
        sampling = COUNTED.get(unit, COUNTED["record"])
    facts = {
        "unit": unit,
        "adjacency": adjacency(unit),
        "mechanism": str(privacy.get("mechanism", "site-noise")),
        "sampling": sampling,
        "sample_rate": rate,
        "clip_norm": privacy.get("clip_norm"),
        "noise_multiplier": grant.meta.get("plan", {}).get("noise_multiplier"),
        "delta": grant.delta,
        "epsilon": grant.epsilon if grant.is_protected else None,
        "protected": grant.is_protected,
        "simulated": is_simulated(grant),
        "against": "everyone who sees what left the site, the server included",
        "scope": WHOLE,
    }
    if unit != "record":
        facts["caveat"] = CAVEAT.format(unit=unit)
    most_sites = privacy.get("max_sites_per_person")
    if most_sites is not None and grant.is_protected:
        facts["across_sites"] = _across_sites(most_sites, grant)
    return {**facts, "sentence": _sentence(facts)}


def _across_sites(most_sites: int, grant: Grant) -> dict[str, Any]:
    """The sum over the sites that may hold one person, as the study declares them."""
    return {
        "max_sites": most_sites,
        "epsilon": most_sites * grant.epsilon,
        "delta": most_sites * grant.delta,
    }


def _sampling(unit: str, rate: object, max_records: object) -> str:
    if unit == "person":
        who = "every person in every step" if rate == 1 else "Poisson over persons"
        return f"{who}, at most {max_records} rows of each"
    if unit == "site":
        return (
            "the whole site, in every step" if rate == 1 else "the whole site, Poisson"
        )
    return "every row in every step" if rate == 1 else "Poisson"


def _sentence(facts: dict[str, Any]) -> str:
    if not facts["protected"]:
        promise = UNPROTECTED
    else:
        default = f"any one {facts['unit']} was in its data or not"
        promise = (
            f"Whoever sees everything that left this site for this study learns "
            f"almost the same whether {PRESENT.get(facts['unit'], default)}: "
            f"(epsilon {facts['epsilon']:g}, delta {facts['delta']:g}) differential "
            f"privacy, {facts['adjacency']}, over {facts['scope']}."
        )
    return f"{SIMULATED} {promise}" if facts["simulated"] else promise


def study_of(grant: Grant) -> dict[str, Any]:
    """The study as the site accepted it; empty if the grant does not carry it."""
    import json

    text = grant.meta.get("study")
    parsed: dict[str, Any] = json.loads(text) if isinstance(text, str) else {}
    return parsed


def is_simulated(grant: Grant) -> bool:
    """True where the noise came from a seed."""
    return bool(grant.meta.get("simulated", False))
