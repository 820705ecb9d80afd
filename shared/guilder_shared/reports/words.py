"""The sentences of a report: what is promised, in words, and what is not.

Computed from a grant's public facts; knows no numbers but those it is given.
"""

from typing import Any

from guilder_shared.privacy.book import Grant

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
    "An old copy of this ledger put back in place of the newest one: the chain shows "
    "what was written, not that nothing newer was cut off.",
)


def guarantee(grant: Grant) -> dict[str, Any]:
    """What one study promises at this site, as data and as one sentence.

    The sentence never names epsilon without unit, adjacency, delta and scope.
    """
    study = study_of(grant)
    privacy, training = study.get("privacy", {}), study.get("training", {})
    unit = str(privacy.get("unit", "record"))
    rate = training.get("sample_rate")
    facts = {
        "unit": unit,
        "adjacency": f"add or remove one {unit}",
        "mechanism": str(privacy.get("mechanism", "site-noise")),
        "sampling": "every row in every step" if rate == 1 else "Poisson",
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
    return {**facts, "sentence": _sentence(facts)}


def _sentence(facts: dict[str, Any]) -> str:
    if not facts["protected"]:
        promise = UNPROTECTED
    else:
        promise = (
            f"Whoever sees everything that left this site for this study learns "
            f"almost the same whether any one {facts['unit']} was in its data or not: "
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
