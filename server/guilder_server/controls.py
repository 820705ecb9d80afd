"""The global control variate of a run (SCAFFOLD), and whose variates it is the mean of.

    control + share x (mean of the sites' new variates - their old ones), where share is
    the part of the members, by weight, that answered

A site's change of variate is - control - update / (steps x rate), so the mean of the
updates says it all and no variate travels here. Only while the members and their
weights stay the same is the sum right: when they change, all variates begin anew with
the next round, which then is one of plain FedAvg. Which round that is is durable with
the round before it, so that a request never differs between two askings.

Review, mathematics: post-processing of private updates. Crash order: pure; the caller
makes it durable with the round.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from guilder_server.aggregate import Numbers
from guilder_server.learners import Learner
from guilder_shared.study import Study

CONTROL: Final = "control"


@dataclass(frozen=True)
class Since:
    """From which round on variates count, and of which members, by weight."""

    round_no: int = 1
    weights: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Mapping[str, Any] | None) -> "Since":
        """As a run kept it; before its first round all begins."""
        return cls() if facts is None else cls(facts["round_no"], facts["weights"])

    def after(self, round_no: int, weights: Mapping[str, int]) -> "Since":
        """What holds after a round with these members; anew if they changed."""
        if self.weights and dict(self.weights) != dict(weights):
            return Since(round_no + 1, weights)
        return Since(self.round_no, weights)


def learner(study: Study, share: float) -> Learner:
    """FedAvg's step, and the control's.

    Args:
        study: Gives the number of local steps and their length.
        share: Weight of those that answered over the weight of all members; 0 begins
            anew.
    """
    moved = study.training.local_steps * study.training.learning_rate

    def rule(model: Numbers, centre: Numbers, control: Numbers) -> tuple[Numbers, ...]:
        if not share:
            return model + centre, control * 0.0
        return model + centre, control - share * (control + centre / moved)

    return Learner(rule, {CONTROL: 0.0})
