"""Who is drawn: independent coins at exactly the public rate, from nobody's seed."""

import hashlib
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # no stubs

from guilder_shared.privacy import sampling
from guilder_shared.privacy.sampling import Keystream, TurnKeys, poisson
from guilder_shared.study import Study

FALSE_ALARM = 1e-6
KEYS = TurnKeys.seeded(1, site="site-1", round_no=1)


def counts_over(draws: int, num_units: int, rate: float) -> NDArray[np.int64]:
    counts = np.zeros(num_units, dtype=np.int64)
    for step in range(draws):
        counts[poisson(num_units, rate, KEYS.key("sampling", step))] += 1
    return counts


@pytest.mark.parametrize("rate", [0.01, 0.5, 0.9])
def test_every_unit_is_included_at_the_public_rate(rate: float) -> None:
    num_units, draws = 50, 4000

    counts = counts_over(draws, num_units, rate)

    each = FALSE_ALARM / num_units / 2
    low, high = stats.binom.ppf([each, 1 - each], draws, rate)
    assert counts.min() >= low
    assert counts.max() <= high


def test_units_are_drawn_independently_of_each_other() -> None:
    rate, num_units, draws = 0.2, 400, 2000

    sizes = [
        poisson(num_units, rate, KEYS.key("sampling", s)).size for s in range(draws)
    ]

    # Sizes of independent coins are binomial; their variance shows any dependence.
    expected = num_units * rate * (1 - rate)
    ratio = float(np.var(sizes, ddof=1)) / expected * (draws - 1)
    low, high = stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], draws - 1)
    assert low < ratio < high


def test_a_rate_of_one_takes_every_unit_without_a_coin() -> None:
    drawn = poisson(1000, 1.0, bytes(32))

    assert drawn.tolist() == list(range(1000))


def test_no_units_and_small_rates_give_empty_batches() -> None:
    assert poisson(0, 0.5, bytes(32)).size == 0
    assert poisson(0, 1.0, bytes(32)).size == 0
    assert poisson(20, 1e-9, KEYS.key("sampling", 0)).size == 0


def test_the_uniform_has_64_bits_and_the_threshold_is_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rate = 0.3
    threshold = int(Fraction(rate) * 2**64)
    forced = np.array(
        [0, threshold - 1, threshold, threshold + 1, 2**64 - 1], dtype=np.uint64
    )
    monkeypatch.setattr(Keystream, "words", lambda self, num: forced[:num])

    drawn = poisson(5, rate, bytes(32))

    assert drawn.tolist() == [0, 1]


def test_a_draw_does_not_depend_on_the_units_that_come_after() -> None:
    key = KEYS.key("sampling", 3)
    num_units = sampling._BLOCK_WORDS + 100

    few, many = poisson(num_units, 0.1, key), poisson(3 * num_units, 0.1, key)

    assert few.tolist() == many[many < num_units].tolist()
    assert np.all(np.diff(many) > 0)


def test_rates_outside_zero_to_one_are_refused() -> None:
    for rate in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="sample_rate"):
            poisson(10, rate, bytes(32))


def test_the_stream_does_not_depend_on_how_it_is_read() -> None:
    key = KEYS.key("noise", 0)
    whole = Keystream(key).words(50_000)

    parts = Keystream(key)
    read = np.concatenate([parts.words(n) for n in (1, 16_385, 7, 33_607)])

    assert np.array_equal(whole, read)


def test_keys_of_every_purpose_step_site_round_turn_and_seed_differ() -> None:
    keys = {
        TurnKeys.seeded(seed, site=site, round_no=round_no, turn_no=turn_no).key(
            purpose, step
        )
        for seed in (1, 2)
        for site in ("a", "b")
        for round_no in (1, 11)
        for turn_no in (0, 1)
        for purpose in ("sampling", "noise")
        for step in (0, 1, 256)
    }

    assert len(keys) == 2 * 2 * 2 * 2 * 2 * 3


def test_keys_from_the_operating_system_never_repeat_whatever_is_seeded() -> None:
    roots = set()
    for _ in range(100):
        random.seed(7)
        np.random.seed(7)
        roots.add(TurnKeys.from_os().root)

    assert len(roots) == 100


def test_a_key_is_never_printed() -> None:
    keys = TurnKeys(b"secret secret secret secret secr")

    assert "secret" not in repr(keys)


def test_only_unprotected_studies_honour_the_test_seed(
    study_of: Callable[..., Study],
) -> None:
    open_study = study_of(privacy={"mechanism": "none"}, test_seed=5)
    private = study_of()
    forged = private.model_copy(
        update={"training": private.training.model_copy(update={"test_seed": 5})}
    )
    where: Any = {"site": "a", "round_no": 2, "turn_no": 3}

    same = [TurnKeys.choose(open_study, **where) for _ in range(2)]
    fresh = [TurnKeys.choose(forged, **where) for _ in range(2)]

    assert same[0] == same[1] == TurnKeys.seeded(5, site="a", round_no=2)
    assert fresh[0] != fresh[1]


def test_a_simulated_turn_is_keyed_by_its_number_too(
    study_of: Callable[..., Study],
) -> None:
    where: Any = {"site": "a", "round_no": 2, "simulation_seed": 7}

    first, second = (
        TurnKeys.choose(study_of(), turn_no=turn_no, **where) for turn_no in (1, 2)
    )

    assert first != second


def test_golden_draw() -> None:
    drawn = poisson(100_000, 0.013, KEYS.key("sampling", 0))

    digest = hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest()
    assert (drawn.size, digest[:16]) == (1299, "3ca92cab80f97377")


def test_a_key_is_that_of_hkdf_expand_as_another_library_makes_it() -> None:
    keys = TurnKeys(bytes(range(32)))

    for step in (0, 1, 2**40):
        info = b"guilder/1/noise/" + step.to_bytes(8, "big")
        other = HKDFExpand(algorithm=SHA256(), length=32, info=info)
        assert keys.key("noise", step) == other.derive(bytes(range(32)))
