"""Whole-number noise drawn exactly: discrete Gaussian, and Laplace rounded to wholes.

No float enters a draw, so the law of what comes out is the one that is accounted. This
module knows no statistic and charges nothing.

Review, mathematics. Every coin is a comparison of a uniform whole number with a
fraction; exp(-x) is the chance that a run of such coins is odd. `discrete_gaussian` has
probability in proportion to exp(-k^2 / (2 s^2)). `rounded_laplace` is the nearest whole
number to Laplace noise of scale b: it is zero with chance 1 - exp(-1 / (2 b)) and |k|
grows geometrically with exp(-1 / b). Added to a whole count it is a function of the
count with continuous Laplace noise, which is what is accounted. Both on a keystream of
AES. Source: Canonne, Kamath and Steinke 2020, algorithms 1 to 3.
Review, crash order: in memory only.
"""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from guilder_shared.privacy.sampling import Keystream

_WORDS = 256


class Coins:
    """Exact coins and whole-number noise from one keystream.

    Args:
        key: 32 bytes, used for these draws only.
    """

    def __init__(self, key: bytes) -> None:
        self._stream = Keystream(key)
        self._words: list[int] = []

    def below(self, limit: int) -> int:
        """Uniform on 0 .. limit - 1."""
        num_words = -(-limit.bit_length() // 64)
        spare = 64 * num_words - limit.bit_length()
        while True:
            drawn = 0
            for _ in range(num_words):
                drawn = drawn << 64 | self._word()
            if drawn >> spare < limit:
                return drawn >> spare

    def chance(self, of: Fraction) -> bool:
        """True with this probability."""
        return self.below(of.denominator) < of.numerator

    def chance_exp(self, x: Fraction) -> bool:
        """True with probability exp(-x), x not negative."""
        while x > 1:
            if not self._chance_exp_to_1(Fraction(1)):
                return False
            x -= 1
        return self._chance_exp_to_1(x)

    def geometric(self, x: Fraction) -> int:
        """At least k with probability exp(-x k); x above 0."""
        unit = x.denominator
        while True:
            rest = self.below(unit)
            if self.chance_exp(Fraction(rest, unit)):
                break
        whole = 0
        while self.chance_exp(Fraction(1)):
            whole += 1
        return (whole * unit + rest) // x.numerator

    def rounded_laplace(self, scale: Fraction) -> int:
        """Laplace noise, rounded to the nearest whole number."""
        if not self.chance_exp(1 / (2 * scale)):
            return 0
        size = 1 + self.geometric(1 / scale)
        return size if self.chance(Fraction(1, 2)) else -size

    def discrete_gaussian(self, sigma: Fraction) -> int:
        """A whole k with probability in proportion to exp(-k^2 / (2 sigma^2))."""
        width = int(sigma) + 1
        square = sigma * sigma
        while True:
            drawn = self._discrete_laplace(Fraction(width))
            away = abs(drawn) - square / width
            if self.chance_exp(away * away / (2 * square)):
                return drawn

    def _discrete_laplace(self, scale: Fraction) -> int:
        while True:
            is_negative = self.chance(Fraction(1, 2))
            size = self.geometric(1 / scale)
            if size or not is_negative:
                return -size if is_negative else size

    def _chance_exp_to_1(self, x: Fraction) -> bool:
        run = 1
        while self.chance(x / run):
            run += 1
        return run % 2 == 1

    def _word(self) -> int:
        if not self._words:
            self._words = self._stream.words(_WORDS).tolist()
        return self._words.pop()


def noised(
    counts: NDArray[np.int64], kind: str, noise_multiplier: float, key: bytes
) -> NDArray[np.int64]:
    """Add whole-number noise to whole counts.

    Args:
        counts: Shape (numbers,); a unit moves it by 1 in one place, or not at all.
        kind: "laplace" or "discrete-gaussian".
        noise_multiplier: Scale or sigma of the noise.
        key: 32 bytes, used for this release only.

    Guarantee: that of one event of this kind and noise.
    """
    coins, noise = Coins(key), Fraction(noise_multiplier)
    draw = coins.rounded_laplace if kind == "laplace" else coins.discrete_gaussian
    return counts + np.array([draw(noise) for _ in counts], dtype=np.int64)
