"""A claimed report held against what its entries say; the first place that differs.

Knows no figure: `figures.py` says what each must be, or which rule it keeps to.
"""

from __future__ import annotations

import math
import re
from typing import Any

from guilder_verifier.events import NEAR
from guilder_verifier.figures import PHRASES, Rule
from guilder_verifier.finding import Finding

NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def compare(true: Any, claimed: Any, where: str = "report") -> None:
    """Raise unless a claim is what it must be, with nothing left out or added.

    Raises:
        Finding: GLD-I013 with the place; GLD-I091 for a member that no such report has.
    """
    if isinstance(true, Rule):
        if not _keeps(true, claimed):
            raise differs(where)
    elif isinstance(true, dict) and isinstance(claimed, dict):
        added = sorted(claimed.keys() - true.keys())
        if added:
            raise Finding("GLD-I091", f"{where} has a member {added[0]!r:.60}")
        if true.keys() != claimed.keys():
            raise differs(where)
        for name in sorted(true):
            compare(true[name], claimed[name], f"{where}.{name}")
    elif isinstance(true, list) and isinstance(claimed, list):
        if len(true) != len(claimed):
            raise differs(where)
        for number, (one, other) in enumerate(zip(true, claimed), 1):
            compare(one, other, f"{where}[{number}]")
    elif true != claimed or isinstance(true, bool) != isinstance(claimed, bool):
        raise differs(where)


def differs(where: str) -> Finding:
    """What to say of a figure that does not follow from the entries."""
    return Finding("GLD-I013", f"{where} does not follow from the file's own entries")


def _keeps(rule: Rule, claimed: Any) -> bool:
    if rule.kind == "texts":
        return isinstance(claimed, list) and all(isinstance(t, str) for t in claimed)
    if rule.kind == "text":
        return isinstance(claimed, str)
    if rule.kind == "sentence":
        return isinstance(claimed, str) and _says(claimed, rule)
    if isinstance(claimed, bool) or not isinstance(claimed, (int, float)):
        return False
    if rule.kind == "near":
        return math.isclose(claimed, rule.value, rel_tol=NEAR)
    return bool(claimed >= rule.value * (1 - NEAR))


def _says(sentence: str, rule: Rule) -> bool:
    """Whether a sentence's figures and phrases are these, however it is worded."""
    told = [float(number) for number in NUMBER.findall(sentence)]
    numbers = rule.numbers or ()
    return (
        len(told) == len(numbers)
        and all(math.isclose(a, b, rel_tol=NEAR) for a, b in zip(told, numbers))
        and rule.phrases == {phrase for phrase in PHRASES if phrase in sentence}
    )
