"""Which rows a step takes: persons by their own coins, capped by a fresh choice."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # no stubs

from guilder_shared.privacy.sampling import TurnKeys, poisson
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.draws import Draw, Sampler

Make = Callable[..., Study]
FALSE_ALARM = 1e-6
KEYS = TurnKeys.seeded(3, site="site-1", round_no=1)


def people(study_of: Make, rate: float = 1.0, max_records: int = 5) -> Study:
    study = study_of(sample_rate=rate)
    privacy = study.privacy.model_copy(
        update={"unit": "person", "max_records": max_records}
    )
    return study.model_copy(update={"privacy": privacy})


def whole_site(study_of: Make, rate: float) -> Study:
    study = study_of(sample_rate=rate)
    privacy = study.privacy.model_copy(update={"unit": "site"})
    return study.model_copy(update={"privacy": privacy})


def examples(units: NDArray[np.int64] | None, num: int = 0) -> Examples:
    num = num if units is None else len(units)
    return Examples(np.zeros((num, 2), np.float32), np.zeros(num, np.float32), units)


def of(*counts: int, seed: int = 0) -> NDArray[np.int64]:
    """Rows of persons 0, 100, 200, … in mixed order, so many of each."""
    units = np.repeat(100 * np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(units)


def rows_by_person(draw: Draw, units: NDArray[np.int64]) -> dict[int, list[int]]:
    """Row numbers of each person drawn; each unit of the draw is one person."""
    assert draw.units is not None
    found: dict[int, list[int]] = {}
    for number in np.unique(draw.units):
        rows = draw.rows[draw.units == number]
        (person,) = set(units[rows].tolist())
        assert person not in found
        found[person] = rows.tolist()
    return found


def test_records_are_drawn_as_before(study_of: Make) -> None:
    draw = Sampler(study_of(sample_rate=0.2), examples(None, 500)).draw(KEYS, 4)

    assert draw.units is None
    assert np.array_equal(draw.rows, poisson(500, 0.2, KEYS.key("sampling", 4)))


def test_a_person_comes_whole_up_to_the_cap(study_of: Make) -> None:
    counts = (1, 4, 5, 6, 500)
    units = of(*counts)

    draw = Sampler(people(study_of), examples(units)).draw(KEYS, 0)

    taken = rows_by_person(draw, units)
    assert [len(taken[100 * i]) for i in range(5)] == [1, 4, 5, 5, 5]
    assert draw.units is not None
    assert np.all(np.diff(draw.units) >= 0)
    assert all(rows == sorted(set(rows)) for rows in taken.values())


@pytest.mark.parametrize("rate", [0.05, 0.6])
def test_every_person_is_included_at_the_public_rate_whatever_it_owns(
    study_of: Make, rate: float
) -> None:
    counts, draws = (1, 2, 3, 50, 400), 3000
    units = of(*counts)
    sampler = Sampler(people(study_of, rate), examples(units))

    times = np.zeros(len(counts), np.int64)
    sizes = []
    for step in range(draws):
        present = np.unique(units[sampler.draw(KEYS, step).rows]) // 100
        times[present] += 1
        sizes.append(len(present))

    each = FALSE_ALARM / len(counts) / 4
    low, high = stats.binom.ppf([each, 1 - each], draws, rate)
    assert low <= times.min() <= times.max() <= high
    # Independent coins: the variance of how many come is that of a binomial.
    ratio = np.var(sizes, ddof=1) / (len(counts) * rate * (1 - rate)) * (draws - 1)
    low, high = stats.chi2.ppf([FALSE_ALARM / 4, 1 - FALSE_ALARM / 4], draws - 1)
    # Sums of few coins have other tails than normal ones: twice the room.
    assert low * 0.8 < ratio < high * 1.2


def test_the_cap_chooses_uniformly_and_anew_in_every_step(study_of: Make) -> None:
    draws, owned, cap = 4000, 20, 5
    units = of(owned, 3)
    sampler = Sampler(people(study_of, max_records=cap), examples(units))

    chosen = [
        tuple(rows_by_person(sampler.draw(KEYS, step), units)[0])
        for step in range(draws)
    ]

    times = np.bincount(np.concatenate(chosen), minlength=len(units))[units == 0]
    each = FALSE_ALARM / owned / 2
    low, high = stats.binom.ppf([each, 1 - each], draws, cap / owned)
    assert low <= times.min() <= times.max() <= high
    assert len(set(chosen)) > 0.8 * draws  # of 15,504 subsets, 3,525 are expected


def test_nobodys_coin_or_choice_depends_on_who_else_is_there(study_of: Make) -> None:
    units = of(3, 9, 40, 7, 1)
    study = people(study_of, 0.5, max_records=4)

    for step in range(30):
        whole = rows_by_person(Sampler(study, examples(units)).draw(KEYS, step), units)
        for person in np.unique(units):
            kept = np.flatnonzero(units != person)
            sampler = Sampler(study, examples(units[kept]))
            less = rows_by_person(sampler.draw(KEYS, step), units[kept])
            assert {p: kept[rows].tolist() for p, rows in less.items()} == {
                p: rows for p, rows in whole.items() if p != person
            }


def test_one_person_with_all_rows_is_one_unit(study_of: Make) -> None:
    draw = Sampler(people(study_of), examples(of(2000))).draw(KEYS, 0)

    assert draw.units is not None
    assert (len(draw.rows), draw.units.tolist()) == (5, [0] * 5)


def test_nobody_there_gives_an_empty_draw(study_of: Make) -> None:
    for study in (people(study_of), whole_site(study_of, 1.0)):
        draw = Sampler(study, examples(np.empty(0, np.int64))).draw(KEYS, 0)

        assert len(draw) == 0
        assert draw.units is not None


def test_persons_without_names_are_never_taken_for_records(study_of: Make) -> None:
    with pytest.raises(ValueError, match="person"):
        Sampler(people(study_of), examples(None, 10))


def test_a_site_comes_whole_or_not_at_all(study_of: Make) -> None:
    every = Sampler(whole_site(study_of, 1.0), examples(None, 7)).draw(KEYS, 0)
    sampler = Sampler(whole_site(study_of, 0.3), examples(None, 7))

    draws = [sampler.draw(KEYS, step) for step in range(3000)]

    assert every.rows.tolist() == list(range(7))
    assert every.units is not None
    assert not every.units.any()
    assert {len(draw) for draw in draws} == {0, 7}
    low, high = stats.binom.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], 3000, 0.3)
    assert low <= sum(len(draw) > 0 for draw in draws) <= high


@settings(max_examples=60)
@given(
    units=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 4), max_size=40),
    cap=st.integers(1, 6),
    rate=st.sampled_from([0.3, 1.0]),
    step=st.integers(0, 1000),
)
def test_any_rows_give_whole_persons_within_the_cap(
    study_of: Make, units: list[int], cap: int, rate: float, step: int
) -> None:
    whose = np.array(units, dtype=np.int64)
    owned = Counter(units)

    draw = Sampler(people(study_of, rate, cap), examples(whose)).draw(KEYS, step)

    taken = rows_by_person(draw, whose)
    assert all(len(taken[p]) == min(owned[p], cap) for p in taken)
    assert len(set(draw.rows.tolist())) == len(draw)
    assert rate < 1 or taken.keys() == owned.keys()
