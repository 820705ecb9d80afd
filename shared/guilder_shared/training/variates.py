"""Control variates: what a site's gradients were, against everybody's (SCAFFOLD).

A site descends against its gradient - its own variate + the global one, so that several
local steps lead where the consortium goes and not where this site alone would. This
module trains nothing and keeps nothing.

Review, mathematics: option II. The new variate of a site is the mean noised gradient of
its turn, read off the update that leaves: own - global - update / (steps x rate). It is
a function of what was released and of what the server sent: post-processing, so no
event changes. The server can compute all of it itself but does not have to: no variate
travels from a site. A shift is added to a gradient after its noise, like any weights a
hostile server may send it moves where the steps go and not what a unit adds to them.
Review, crash order: pure; `turn` makes a variate durable before its update is sent.

Source: Karimireddy et al. 2020, "SCAFFOLD", algorithm 1 with option II.
"""

import numpy as np

from guilder_shared.messages import Weights
from guilder_shared.study import Study


def shift(own: Weights, control: Weights) -> Weights:
    """What is added to each noised gradient: the global variate less one's own."""
    return {n: np.subtract(c, own[n], dtype=np.float32) for n, c in control.items()}


def renewed(own: Weights, control: Weights, update: Weights, study: Study) -> Weights:
    """A site's variate after a turn.

    Args:
        own: Its variate that the turn used; zeros at first.
        control: The global variate that the turn used.
        update: What leaves, as the server reads it.
        study: Gives the number of steps and their length.
    """
    moved = study.training.local_steps * study.training.learning_rate
    return {
        name: (
            own[name].astype(np.float64) - c - update[name].astype(np.float64) / moved
        ).astype(np.float32)
        for name, c in control.items()
    }
