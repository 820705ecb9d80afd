"""Normal numbers: the right law, to the far tails, and from the key alone."""

import math

import numpy as np
import pytest
import torch
from scipy import stats  # type: ignore[import-untyped]  # no stubs

from guilder_shared.privacy import normals
from guilder_shared.privacy.normals import BLOCK, Normals, gaussian
from guilder_shared.privacy.sampling import Keystream, TurnKeys, Words

FALSE_ALARM = 1e-6
KEY = TurnKeys.seeded(2, site="site-1", round_no=1).key("noise", 0)
ALL_ONES = 2**64 - 1


def force(monkeypatch: pytest.MonkeyPatch, words: list[int]) -> None:
    """One pair of these words: for the radius, for more of it, and for the angle."""
    top, low, turn = words
    streams = {0: top, normals._TURNS_FROM: turn, normals._FAR_FROM: low}

    class Forced:
        def __init__(self, key: bytes, first_word: int = 0) -> None:
            self.word = streams[first_word]

        def fill(self, out: Words) -> None:
            out[:] = self.word

        def words(self, num: int) -> Words:
            return np.full(num, self.word, dtype=np.uint64)

    monkeypatch.setattr(normals, "Keystream", Forced)


def test_mean_variance_and_tails_are_those_of_a_standard_normal() -> None:
    num = 2_000_000

    numbers = gaussian(num, KEY)

    z = stats.norm.isf(FALSE_ALARM / 8)
    assert abs(numbers.mean()) < z / math.sqrt(num)
    assert abs(numbers.var() - 1) < z * math.sqrt(2 / num)
    assert abs((numbers**4).mean() - 3) < z * math.sqrt(96 / num)
    beyond = np.count_nonzero(np.abs(numbers) > 4)
    low, high = stats.binom.ppf(
        [FALSE_ALARM / 8, 1 - FALSE_ALARM / 8], num, 2 * stats.norm.sf(4)
    )
    assert low <= beyond <= high


def test_the_distribution_passes_a_kolmogorov_smirnov_test() -> None:
    assert stats.kstest(gaussian(500_000, KEY), "norm").pvalue > FALSE_ALARM


def test_the_two_numbers_of_a_pair_are_independent() -> None:
    pairs = gaussian(1_000_000, KEY).reshape(-1, 2)

    bound = stats.norm.isf(FALSE_ALARM / 4) / math.sqrt(len(pairs))
    assert abs(np.mean(pairs[:, 0] * pairs[:, 1])) < bound
    # Variance of (x^2 - 1)(y^2 - 1) is 4: the radius must not tie the squares.
    squares = (pairs**2 - 1).prod(axis=1)
    assert abs(squares.mean()) < 2 * bound


@pytest.mark.parametrize(
    ("words", "radius"),
    [
        ([0, 0, 0], math.sqrt(2 * 129 * math.log(2))),
        ([0, ALL_ONES, 0], math.sqrt(2 * 64 * math.log(2))),
        ([1, 0, 0], math.sqrt(2 * 64 * math.log(2))),
        ([2**44 - 1, ALL_ONES, 0], math.sqrt(2 * 20 * math.log(2))),
        ([2**44, 0, 0], math.sqrt(2 * 20 * math.log(2))),
        ([2**63, 0, 0], math.sqrt(2 * math.log(2))),
        ([ALL_ONES, ALL_ONES, 0], 0.0),
    ],
)
def test_extreme_words_give_finite_numbers_of_the_right_radius(
    monkeypatch: pytest.MonkeyPatch, words: list[int], radius: float
) -> None:
    force(monkeypatch, words)

    pair = gaussian(2, bytes(32))

    assert np.hypot(*pair) == pytest.approx(radius, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("turn", [0, 1, 2**62, 2**63, ALL_ONES])
def test_extreme_angles_keep_the_radius(
    monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    force(monkeypatch, [2**40, 2**63, turn])

    pair = gaussian(2, bytes(32))

    angle = 2 * math.pi * (turn + 0.5) / 2**64
    expected = math.sqrt(2 * 24 * math.log(2))
    assert pair[0] == pytest.approx(expected * math.cos(angle), abs=1e-12)
    assert pair[1] == pytest.approx(expected * math.sin(angle), abs=1e-12)


def test_radius_reaches_beyond_what_24_or_53_bits_could(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    force(monkeypatch, [3, 0, 0])

    assert gaussian(1, bytes(32))[0] > math.sqrt(2 * 54 * math.log(2))


def test_noise_depends_on_its_key_alone() -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    first = gaussian(1001, KEY)
    torch.manual_seed(8)
    state = torch.get_rng_state()

    again = gaussian(1001, KEY)

    assert np.array_equal(first, again)
    assert torch.equal(state, torch.get_rng_state())
    assert not np.array_equal(first, gaussian(1001, KEY[::-1]))


def test_more_numbers_from_a_key_begin_with_the_same_ones() -> None:
    many = gaussian(50_001, KEY)

    assert np.array_equal(gaussian(20_001, KEY), many[:20_001])
    assert gaussian(0, KEY).size == 0


def test_measured_cells_are_as_exact_as_the_residue_assumes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Near the origin, usual, and as far as radius 9.4, against 60-digit arithmetic."""
    import mpmath  # type: ignore[import-untyped]  # no stubs

    mpmath.mp.prec = 200
    words = Keystream(KEY).words(900).reshape(3, 300)
    words[0, :100] >>= np.uint64(40)  # far: radius about 7.5 to 9
    words[0, 100:150] = np.uint64(ALL_ONES) - (words[0, 100:150] >> np.uint64(30))
    words[0, 150:200] >>= np.uint64(19)  # about where more bits are read, and not

    class Forced:
        def __init__(self, key: bytes, first_word: int = 0) -> None:
            self.first = first_word

        def fill(self, out: Words) -> None:
            out[:] = words[2 if self.first == normals._TURNS_FROM else 0]

        def words(self, num: int) -> Words:
            return words[1, (self.first - normals._FAR_FROM) // 2 :][:1]

    monkeypatch.setattr(normals, "Keystream", Forced)
    scale = 19.3

    out = np.empty(600)
    Normals(KEY).fill(out, scale)

    numbers = zip(*words.tolist(), out[::2], out[1::2], strict=True)
    for top, low, turn, x, y in numbers:
        u = (mpmath.mpf(top) + (mpmath.mpf(low) + 0.5) / 2**64) / 2**64
        angle = 2 * mpmath.pi * (mpmath.mpf(turn) + 0.5) / 2**64
        radius = mpmath.sqrt(-2 * mpmath.log(u))
        # Near u = 1 the radius is coarse by 2**-53 / radius: point 2 of the review.
        allowed = scale * (2.0**-45 + min(2.0**-53 / float(radius), 2.0**-26))
        assert abs(scale * radius * mpmath.cos(angle) - x) < allowed
        assert abs(scale * radius * mpmath.sin(angle) - y) < allowed


def test_a_block_in_the_middle_has_the_numbers_of_the_whole() -> None:
    middle = np.empty(BLOCK)

    Normals(KEY, first=BLOCK).fill(middle)

    assert np.array_equal(middle, gaussian(3 * BLOCK, KEY)[BLOCK : 2 * BLOCK])
    with pytest.raises(ValueError, match="multiple"):
        Normals(KEY, first=2)


def test_few_pairs_read_on_and_each_its_own_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With every pair below the mark no word is read twice."""
    read: list[int] = []

    class Watched(Keystream):
        def __init__(self, key: bytes, first_word: int = 0) -> None:
            read.append(first_word)
            super().__init__(key, first_word)

    monkeypatch.setattr(normals, "Keystream", Watched)
    monkeypatch.setattr(normals, "_FAR", 2.0**64)

    gaussian(BLOCK + 40, KEY)

    far = [word for word in read if word >= normals._FAR_FROM]
    assert len(far) == len(set(far)) == BLOCK // 2 + 20
    assert max(read) - normals._FAR_FROM < 2 * (BLOCK // 2 + 20)
