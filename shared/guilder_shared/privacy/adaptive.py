"""A clip norm that follows the gradients' norms, for no more epsilon.

Each step answers two questions on one Poisson draw: the clipped sum, and how many
units were not clipped. Both are one vector, noised once, so one step is one event. This
module computes no gradient and draws no noise. It is read without torch.

Review, mathematics. A unit moves the sum by at most C (1 + s) and the count of "half if
not clipped, minus half if clipped" by exactly 1/2. The count enters the vector times
`count_scale` = 2 C r, r^2 = share / (1 - share), so a unit moves the vector by at most
C sqrt((1 + s)^2 + r^2) <= C (1 + s) / sqrt(1 - share). Its noise has the standard
deviation C z / sqrt(1 - share), z the plan's noise multiplier: the same event as the
sum alone with noise C z. In the words of the source: the sum's multiplier is
(z^-2 - (2 b)^-2)^(-1/2) with b = z / (2 sqrt(share)) the count's deviation. The next C
is a function of the last release and of public constants; it is bounded to within MOST
times its start. A unit that is not finite counts nothing in both. Public: the start,
quantile, rate, share, divisor. The clip norm lives inside a turn: the next turn starts
from the study's again.
Review, crash order: in memory only.

Source: Andrew, Thakkar, McMahan and Ramaswamy 2021, "Differentially private learning
with adaptive clipping", theorem 1 and the remark on the counts' centre.
"""

import math
from typing import Final

from guilder_shared.study.learning import AdaptiveClip

MOST: Final = 100.0  # times its start, and no less than its hundredth


class MovingClip:
    """The clip norm of a turn's next step.

    Args:
        start: The study's clip norm; positive and finite.
        study: Quantile, rate and share.
        divisor: sample_rate x public size, public.

    Attributes:
        clip_norm: C of the next step, public once the last step is released.
    """

    def __init__(self, start: float, study: AdaptiveClip, *, divisor: float) -> None:
        if not (0 < start < math.inf and 0 < divisor < math.inf):
            raise ValueError("start and divisor must be positive and finite")
        self.clip_norm = start
        self._start, self._study, self._divisor = start, study, divisor

    def noise_multiplier(self, planned: float) -> float:
        """Noise on the vector in units of C, where the plan's is `planned`."""
        return planned / math.sqrt(1 - self._study.share)

    @property
    def count_scale(self) -> float:
        """What one whole unit of the count is in the released vector."""
        share = self._study.share
        return 2 * self.clip_norm * math.sqrt(share / (1 - share))

    def learn(self, released: float) -> None:
        """Move C after a step.

        Args:
            released: The vector's last number after the noise: `count_scale` times
                (units not clipped - units clipped) / 2.
        """
        study = self._study
        share = 0.5 + released / self.count_scale / self._divisor
        within = min(max(share, 0.0), 1.0)  # a count is noisy; its meaning is bounded
        moved = self.clip_norm * math.exp(-study.rate * (within - study.quantile))
        self.clip_norm = min(max(moved, self._start / MOST), self._start * MOST)
