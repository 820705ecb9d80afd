"""The longest that an update may be: its bound, and room for its own noise.

An update is signal and noise, and the noise alone is often the longer. Its expected
length is public (the plan's noise, the schedule, the number of coordinates, the site's
public size), so a bound on the signal can be told from it: what is longer than both
together is shortened to that. A site that sends a hundred times its update then moves
the mean by no more than an honest one may.

Review, mathematics: an update is a sum of `local_steps` descents, each against a noised
gradient, so its noise is Gaussian up to what the gradients make of it, with the
standard deviation below; a chi distribution's mean is the expected length.
Post-processing: no charge moves. A site that claims a small public size gets more room
and as much less weight, so its say does not grow.

Source: Sun et al. 2019, "Can you really backdoor federated learning?", norm
thresholding; the allowance is ours.
"""

import math

import numpy as np

from guilder_server.aggregate import blocks
from guilder_shared.messages import Plan, Weights
from guilder_shared.study import Study
from guilder_shared.training.held_out import training_size


def longest(study: Study, plan: Plan, *, public_size: int, num_numbers: int) -> float:
    """The bound of one site's update, L2.

    Args:
        study: With `norm_bound`, plain or momentum descent, a fixed clip norm.
        plan: The noise that every site adds.
        public_size: Of the site: units of a full batch.
        num_numbers: Coordinates of the model.
    """
    assert study.aggregation.norm_bound is not None
    noise = _noise_std(study, plan, public_size) * chi_mean(num_numbers)
    return study.aggregation.norm_bound + noise


def chi_mean(num: int) -> float:
    """The expected length of `num` independent standard normals."""
    return math.sqrt(2) * math.exp(math.lgamma((num + 1) / 2) - math.lgamma(num / 2))


def _noise_std(study: Study, plan: Plan, public_size: int) -> float:
    """Standard deviation of the noise in each coordinate of a turn's update."""
    training, privacy = study.training, study.privacy
    # A site's own mean is clipped where sites are the units: its size cancels.
    size = 1 if privacy.unit == "site" else training_size(public_size, study)
    step = (plan.noise_multiplier or 0.0) * privacy.clip_norm
    step *= training.learning_rate / (training.sample_rate * size)
    if not training.momentum:
        return step * math.sqrt(training.local_steps)
    # The noise of a step goes on in the velocity of those after it.
    left = np.arange(1, training.local_steps + 1)
    shares = (1 - training.momentum**left) / (1 - training.momentum)
    return step * float(np.linalg.norm(shares))


def scale(update: Weights, most: float) -> float:
    """By how much to shorten an update so that it is at most so long; at most 1."""
    squares = [
        float(np.square(flat[block].astype(np.float64)).sum())
        for flat in (values.reshape(-1) for values in update.values())
        for block in blocks(flat.size)
    ]
    length = math.sqrt(math.fsum(squares))
    return 1.0 if length <= most else most / length
