"""What an audit found, for people and for machines, and what it cannot see.

This module computes nothing.
"""

import json
from dataclasses import dataclass
from typing import Any

from guilder_simulations.audit.membership import Membership

BLIND_SPOTS = (
    "A small lower bound proves nothing: it is what this attack showed, not what "
    "another could. The claim rests on the mathematics and on the self-test.",
    "Small faults pass: where rows are sampled, noise at half of what is charged is "
    "usually not noticed here. The self-test measures the noise itself.",
    "The canaries train a linear model by SGD. The study's own layers, optimizer, "
    "copies of rows and preparation of rows are not audited by them.",
    "Metrics that are charged on units held out are not attacked: nobody trains on "
    "those. The self-test measures their noise.",
    "Draws and noise come from a seed. The operating system's randomness, the ledger, "
    "the network, and how long a turn takes are not looked at.",
    "One site is audited. What colluding sites know, or a person whose rows are at "
    "several sites, is not.",
    "Membership is guessed from the last model's loss alone, on made-up or published "
    "rows. Stronger attacks exist, and other rows may be easier to find.",
)


@dataclass(frozen=True)
class Audit:
    """One audit of one study.

    Attributes:
        study: Its name.
        digest: Its digest.
        unit: Whose presence is hidden.
        epsilon: Claimed, for the whole schedule, at `delta`.
        delta: Claimed.
        lower_bound: Epsilon of the study's schedule with the most noise that the
            guesses still contradict; 0 if none is.
        one_run: Least epsilon of any mechanism at all with these guesses.
        confidence: Of each of the two bounds.
        outcome: "consistent"; "doubtful": the bound exceeds the claim; "contradicted":
            even at a confidence of 1 - 1e-3, and again in a second trial.
        canaries: How many.
        guesses: By each rule, made and right.
        turns: Trained, spare ones included.
        seed: Of coins, draws and noise: the same seed gives the same audit.
        seconds: Wall time of the canaries.
        membership: Of the finished model; None where it was not tried.
        untried: Why not.
        allowed: The most members that the claim lets anybody find, by the share of
            strangers mistaken for one.
    """

    study: str
    digest: str
    unit: str
    epsilon: float
    delta: float
    lower_bound: float
    one_run: float
    confidence: float
    outcome: str
    canaries: int
    guesses: tuple[tuple[int, int], ...]
    turns: int
    seed: int
    seconds: float
    membership: Membership | None
    untried: str
    allowed: dict[float, float]

    @property
    def contradicted(self) -> bool:
        """Whether the claim is wrong but for a chance of 1e-6: 1e-3 in each of two."""
        return self.outcome == "contradicted"

    def to_json(self) -> str:
        """One line of JSON, keys as documented in docs/researcher.md."""
        found: dict[str, Any] = {
            "study": self.study,
            "digest": self.digest,
            "unit": self.unit,
            "claimed": {"epsilon": round(self.epsilon, 4), "delta": self.delta},
            "lower_bound": round(self.lower_bound, 4),
            "one_run_lower_bound": round(self.one_run, 4),
            "confidence": self.confidence,
            "outcome": self.outcome,
            "canaries": self.canaries,
            "guesses": [{"made": made, "right": right} for made, right in self.guesses],
            "turns": self.turns,
            "seed": self.seed,
            "seconds": round(self.seconds, 2),
            "membership": self._membership(),
            "not_tried": self.untried or None,
            "cannot_see": list(BLIND_SPOTS),
        }
        return json.dumps(found)

    def to_text(self) -> str:
        """The same for people."""
        level = f"{self.confidence:.0%}"
        made, right = self.guesses[0]
        lines = [
            f"{self.study}: unit {self.unit}, add or remove one, at delta "
            f"{self.delta:g}",
            f"  claimed epsilon          at most  {self.epsilon:.3f}",
            f"  shown by canaries        at least {self.lower_bound:.3f}   ({level} "
            "confidence, for this schedule with any noise)",
            f"  shown, any mechanism     at least {self.one_run:.3f}   ({level} "
            "confidence)",
            f"  {self.canaries:,} canaries through {self.turns} turns in "
            f"{self.seconds:.1f} s; {right:,} of {made:,} guesses right; "
            f"seed {self.seed}",
            *self._membership_lines(),
            f"Outcome: {_WORDS[self.outcome]}",
            "What this audit cannot see:",
            *(f"  - {each}" for each in BLIND_SPOTS),
        ]
        return "\n".join(lines)

    def _membership(self) -> dict[str, Any] | None:
        found = self.membership
        if found is None:
            return None
        low, high = found.auc_interval
        return {
            "auc": round(found.auc, 4),
            "auc_95": [round(low, 4), round(high, 4)],
            "tpr_at_fpr": {
                f"{rate:g}": None if tpr is None else round(tpr, 4)
                for rate, tpr in found.caught.items()
            },
            "allowed_tpr_at_fpr": {
                f"{rate:g}": round(tpr, 4) for rate, tpr in self.allowed.items()
            },
            "members": found.members,
            "strangers": found.strangers,
        }

    def _membership_lines(self) -> list[str]:
        found = self.membership
        if found is None:
            return [f"  membership by loss: not tried, {self.untried}"]
        low, high = found.auc_interval
        lines = [
            f"  membership by loss: AUC {found.auc:.3f} ({low:.3f} to {high:.3f}; 0.5 "
            f"tells nothing), {found.members:,} members, {found.strangers:,} strangers"
        ]
        for rate, tpr in found.caught.items():
            told = "too few strangers to say" if tpr is None else f"{tpr:.2%} found"
            most = self.allowed[rate]
            lines.append(
                f"    at {rate:.1%} false alarms {told}; the claim allows {most:.2%}"
            )
        return lines


_WORDS = {
    "consistent": "nothing here contradicts the claim.",
    "doubtful": "the lower bound exceeds the claim. Chance does this in at most one of "
    "twenty honest audits: run it again with another --seed.",
    "contradicted": "the claim is WRONG on this machine, but for a chance of one in a "
    "million.",
}
