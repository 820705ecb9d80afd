"""Three accountants asked again about each study's events, beside the signed figures.

`verify` computes epsilon by privacy loss distributions; this also asks Rényi
divergences and privacy loss random variables, and holds what the site kept of their
answers at acceptance against today's. Loads no torch; seconds for each distinct study.

Review, mathematics: all three bound the same figure of the same schedule. Two
machines' arithmetic, and roundings to six digits, differ by far less than what is let
pass. Review, crash order: reads only.
"""

import math
from dataclasses import dataclass
from typing import Any

from guilder_shared.errors import IntegrityError, PlanError
from guilder_shared.privacy import accounting
from guilder_shared.reports.build import Report

NAMES = ("pld", "prv", "rdp")
LET_PASS = {"pld": 1e-4, "prv": 5e-3, "rdp": 1e-4}  # relative; PRV's mesh may change


@dataclass(frozen=True)
class Accountants:
    """What three accountants say of one study, each an epsilon at its delta.

    Attributes:
        study: Its name.
        delta: Of the study.
        accepted: Its epsilon, as accepted.
        pld: By privacy loss distributions.
        prv: By privacy loss random variables; None where it would take too long.
        rdp: By Rényi divergences.
    """

    study: str
    delta: float
    accepted: float
    pld: float
    prv: float | None
    rdp: float

    def to_text(self) -> str:
        """One line for people."""
        third = "-" if self.prv is None else f"{self.prv:.4f}"
        return (
            f"{self.study}: epsilon {self.accepted:g} accepted at delta "
            f"{self.delta:g}; PLD {self.pld:.4f}, PRV {third}, RDP {self.rdp:.4f}"
        )


def cross_check(report: Report) -> tuple[Accountants, ...]:
    """Ask all accountants about every protected study of a report that is sound.

    Raises:
        IntegrityError: GLD-I095: one of them contradicts another, a signed figure, or
            what the site kept of its answer.
    """
    return tuple(
        _asked(study)
        for study in report["studies"]
        if study["totals"]["epsilon"] is not None
    )


def _asked(study: Report) -> Accountants:
    (line,), totals = study["events"], study["totals"]
    try:
        found = accounting.evidence(line["event"], line["num_turns"], totals["delta"])
    except PlanError as error:
        raise _contradicts(study, error.what) from None
    assert found is not None, "the caller asks about protected studies"
    signed = {"pld": totals["recomputed_epsilon"]}
    for told in (signed, totals.get("evidence") or {}):
        _compare(study, told, found)
    return Accountants(
        study=study["name"],
        delta=totals["delta"],
        accepted=totals["epsilon"],
        pld=found["pld"],
        prv=found["prv"],
        rdp=found["rdp"],
    )


def _compare(study: Report, told: dict[str, Any], found: dict[str, Any]) -> None:
    for name in NAMES:
        signed, now = told.get(name), found[name]
        if signed is None or now is None:
            continue
        is_number = isinstance(signed, (int, float)) and not isinstance(signed, bool)
        if not is_number or not math.isclose(signed, now, rel_tol=LET_PASS[name]):
            raise _contradicts(study, f"{name.upper()} {now:g}, signed {signed!r:.40}")


def _contradicts(study: Report, what: str) -> IntegrityError:
    return IntegrityError(
        "GLD-I095",
        f"accountants disagree about study {study['name']!r}: {what}",
        why="All of them bound one figure; one is wrong, or was not what it says.",
        fix="Count the study with the largest figure, and ask the site.",
    )
