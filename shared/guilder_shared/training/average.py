"""The average of a study's models over its rounds: less noise in what is published.

Kept by the server, beside the model that training goes on from, so that a site keeps
nothing from turn to turn. This module reads no row and knows no network.

Review, mathematics: post-processing of models that have left already; no charge moves.
Review, crash order: pure; the caller makes the average durable with its round.
"""

import numpy as np

from guilder_shared.messages import Weights


def average(before: Weights, model: Weights, round_no: int, decay: float) -> Weights:
    """The exponential moving average after one more round, corrected for its start.

    Round k of n counts in proportion to decay**(n - k); the model before the first
    round counts nothing. A decay near 1 gives the plain mean of all rounds.

    Args:
        before: The average after round `round_no` - 1; not read in round 1.
        model: The model after round `round_no`.
        round_no: From 1.
        decay: In (0, 1).

    Returns:
        Float32 arrays under the names of `model`.

    Source: De et al. 2022, section 3.5, average of weights; the correction is Adam's.
    """
    share = (1 - decay) / -np.expm1(round_no * np.log(decay))
    if round_no == 1:
        return model
    return {
        name: (
            before[name].astype(np.float64)
            + share * np.subtract(new, before[name], dtype=np.float64)
        ).astype(np.float32)
        for name, new in model.items()
    }
