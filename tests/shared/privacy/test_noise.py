"""Noise on a sum: rounded once, exact beside any sum, with its residue known."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]  # no stubs

from guilder_shared.privacy import noise
from guilder_shared.privacy.noise import add_noise, grid_for, residue
from guilder_shared.privacy.normals import gaussian
from guilder_shared.privacy.sampling import TurnKeys

FALSE_ALARM = 1e-6
KEY = TurnKeys.seeded(2, site="site-1", round_no=1).key("noise", 0)


@pytest.mark.parametrize("std", [1e-30, 0.03, 0.2, 1.0, 1.3, 7e12])
def test_the_grid_is_a_power_of_two_between_a_32nd_and_a_16th_of_std(
    std: float,
) -> None:
    grid = grid_for(std)

    assert math.frexp(grid)[0] == 0.5
    assert std / 32 < grid <= std / 16


def test_every_released_number_lies_on_the_grid() -> None:
    total = np.linspace(-3, 3, 999)
    grid = grid_for(0.4)

    released = add_noise(total, 0.4, KEY, grid)

    assert np.array_equal(released, np.rint(released / grid) * grid)


def test_release_equals_sum_plus_noise_to_half_a_grid() -> None:
    total = np.linspace(-3, 3, 999)
    grid = grid_for(0.4)

    released = add_noise(total, 0.4, KEY, grid)

    exact = total + 0.4 * gaussian(999, KEY)
    assert np.abs(released - exact).max() <= grid / 2 * (1 + 1e-9)


def test_noise_loses_no_bit_beside_a_huge_sum() -> None:
    std, grid = 0.4, grid_for(0.4)
    small = np.full(500, 0.123)
    huge = small + grid * 2.0**40  # rounds 0.123: compare like with like
    rest = huge - grid * 2.0**40

    released = add_noise(huge, std, KEY, grid)

    assert np.array_equal(released - grid * 2.0**40, add_noise(rest, std, KEY, grid))


@pytest.mark.parametrize("largest", [3.0, 8_000.0, 2.0**13, 1e9])
def test_the_addition_is_wrong_by_no_more_than_the_residue_assumes(
    largest: float,
) -> None:
    """Exact arithmetic, where a 2**-41st of a grid more or less decides."""
    rng, grid = np.random.default_rng(4), 2.0**-7
    total = rng.uniform(-largest, largest, 3000).astype(np.float32) * np.float32(grid)
    total[0] = largest * grid
    goal = np.floor(rng.uniform(-300, 300, 3000)) + 0.5  # of all but whole grids
    rest = total.astype(np.float64) / grid
    rest -= np.rint(rest)
    near = 2.0 ** rng.integers(-44, -36, 3000)
    drawn = goal - rest + rng.choice([-1.0, 1.0], 3000) * near
    found = np.empty(3000)

    noise.round_sum(total, drawn, grid, found)

    for x, z, y in zip(total.tolist(), drawn.tolist(), found.tolist(), strict=True):
        exact = Fraction(x) / Fraction(grid) + Fraction(z)
        assert abs(Fraction(y) / Fraction(grid) - exact) <= Fraction(1, 2) + Fraction(
            1, 2**41
        )


def test_no_zero_has_a_sign() -> None:
    """It would tell on which side of zero the noised sum was."""
    found = np.empty(2)

    noise.round_sum(np.array([-0.3, 0.3]), np.zeros(2), 1.0, found)

    assert not np.signbit(found).any()


def test_released_variance_is_the_noise_and_a_little_rounding() -> None:
    num, std = 1_000_000, 0.7

    released = add_noise(np.full(num, 0.111), std, KEY, grid_for(std))

    expected = std**2 + grid_for(std) ** 2 / 12
    bound = stats.norm.isf(FALSE_ALARM / 2) * math.sqrt(2 / num)
    assert abs((released - 0.111).var() / expected - 1) < bound


def test_the_sum_is_not_changed_in_place() -> None:
    total = np.ones(8)

    add_noise(total, 1.0, KEY, grid_for(1.0))

    assert np.array_equal(total, np.ones(8))


def test_a_std_or_grid_that_makes_no_sense_is_refused() -> None:
    for std in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="std"):
            grid_for(std)
    with pytest.raises(ValueError, match="power of two"):
        add_noise(np.zeros(2), 1.0, KEY, 0.1)


def test_the_residue_is_small_and_grows_with_steps_and_epsilon() -> None:
    usual = residue(550, epsilon=3, delta=1e-6)

    assert 0 < usual.epsilon < 2e-4
    assert 1e-6 / 4096 < usual.delta < 1e-6 / 1000
    longer, weaker = (
        residue(55_000, epsilon=3, delta=1e-6),
        residue(550, epsilon=10, delta=1e-6),
    )
    assert longer.epsilon > usual.epsilon
    assert weaker.epsilon > usual.epsilon


@pytest.mark.parametrize("num", [0, 1, 16_384, 50_001])
def test_the_release_does_not_depend_on_the_number_of_threads(num: int) -> None:
    total = np.linspace(-1, 1, num)
    one, three = total.copy(), total.copy()

    noise.add_noise_in_place(one, 0.19, KEY, grid_for(0.19))
    noise.add_noise_in_place(three, 0.19, KEY, grid_for(0.19), threads=3)

    assert one.tobytes() == three.tobytes()
    assert one.tobytes() == add_noise(total, 0.19, KEY, grid_for(0.19)).tobytes()


def test_golden_noise() -> None:
    released = add_noise(np.linspace(-1, 1, 5001), 0.19, KEY, grid_for(0.19))

    digest = hashlib.sha256(released.astype("<f8").tobytes()).hexdigest()
    assert digest[:16] == "654854df9cafc60b"
