"""A clip norm that follows the gradients' norms, for no more epsilon.

Each step answers two questions on one Poisson draw: the clipped sum, and how many
units were not clipped. Both are noised, and together they are one event. This module
computes no gradient. It is read without torch.

Review, mathematics. A unit moves the sum by at most C (1 + s) and the count of "half if
not clipped, minus half if clipped" by exactly 1/2. With independent Gaussian noise of
deviations C a and b the two are one Gaussian mechanism of multiplier
((1 + s)^2 / a^2 + 1 / (2 b)^2)^(-1/2). With a = z / sqrt(1 - share) and
b = z / (2 sqrt(share)) that is at least z / (1 + s), z the plan's multiplier: what the
sum alone would have cost. The next C is a function of what was released and of public
constants, within MOST times its start. A unit that is not finite counts nothing in
both. Whether a unit is clipped must follow from that unit alone, to the bit: hence
isolated steps only. Public: start, quantile, rate, share, divisor. The clip norm lives
inside a turn: the next turn starts from the study's again.
Review, crash order: in memory only.

Source: Andrew, Thakkar, McMahan and Ramaswamy 2021, "Differentially private learning
with adaptive clipping", theorem 1 and the remark on the counts' centre.
"""

import math
from typing import Any, Final

import numpy as np

from guilder_shared.privacy.noise import add_noise, grid_for
from guilder_shared.study.learning import AdaptiveClip

MOST: Final = 100.0  # times its start, and no less than its hundredth


class MovingClip:
    """The clip norm of a turn's next step.

    Args:
        start: The study's clip norm; positive and finite.
        how: Quantile, rate and share.
        planned: The plan's noise multiplier; 0 for none, which is not private.
        divisor: sample_rate x public size, public.

    Attributes:
        clip_norm: C of the next step; public, as the last step's release is.
        noise_multiplier: Of the sum, in units of C: larger than planned.
        count_std: Standard deviation of the noise on the count, in units.
    """

    def __init__(
        self, start: float, how: AdaptiveClip, *, planned: float, divisor: float
    ) -> None:
        if not (0 < start < math.inf and 0 < divisor < math.inf):
            raise ValueError("start and divisor must be positive and finite")
        self.clip_norm = start
        self.noise_multiplier = planned / math.sqrt(1 - how.share)
        self.count_std = planned / (2 * math.sqrt(how.share))
        self._start, self._how, self._divisor = start, how, divisor

    def learn(self, unclipped: float, key: bytes) -> None:
        """Release a step's count and move C by it.

        Args:
            unclipped: `halves` of the step's units. Secret until it is noised here.
            key: 32 bytes, used for this count only.
        """
        count = np.array([unclipped])
        if self.count_std > 0:
            count = add_noise(count, self.count_std, key, grid_for(self.count_std))
        share = min(max(0.5 + float(count[0]) / self._divisor, 0.0), 1.0)
        moved = self.clip_norm * math.exp(
            -self._how.rate * (share - self._how.quantile)
        )
        self.clip_norm = min(max(moved, self._start / MOST), self._start * MOST)


def halves(counted: Any) -> float:
    """Half of (units not clipped - units clipped); one that is not finite is neither.

    Args:
        counted: How much of each unit counted, 1 if it was not clipped, a tensor of
            shape (units,).
    """
    clipped = (counted > 0) & (counted < 1)
    return (int((counted == 1).sum()) - int(clipped.sum())) / 2
