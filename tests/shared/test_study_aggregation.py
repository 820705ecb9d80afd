"""The keys of [aggregation]: bounded, refused where they would mean nothing."""

import pytest

from guilder_shared.settings.mistakes import FileError
from guilder_shared.study import Study
from guilder_simulations.studies import path_of

STEPS = "training.local_steps=2"


def load(*overrides: str) -> Study:
    rate = "training.learning_rate=4"
    return Study.load(path_of("breast-cancer"), (STEPS, rate, *overrides))


def mistakes(*overrides: str) -> list[tuple[str, str]]:
    """Id and key of each mistake."""
    with pytest.raises(FileError) as caught:
        load(*overrides)
    return [(each.error_id, each.key) for each in caught.value.mistakes]


def strategy(name: str, *keys: str) -> tuple[str, ...]:
    return (f"aggregation.strategy={name}", *(f"aggregation.{key}" for key in keys))


ALL = {
    "fedavg": strategy("fedavg"),
    "fedprox": strategy("fedprox", "proximal=0.05"),
    "fedadam": strategy("fedadam", "server_learning_rate=0.3"),
    "scaffold": strategy("scaffold"),
    "median": strategy("median"),
    "trimmed-mean": strategy("trimmed-mean", "trim=0.34"),
    "norm-bound": strategy("norm-bound", "norm_bound=2.0"),
}


@pytest.mark.parametrize("name", ALL)
def test_every_strategy_travels_and_comes_back_the_same(name: str) -> None:
    study = load(*ALL[name])

    travelled = Study.from_canonical(study.canonical())

    assert travelled.aggregation.strategy == name
    assert travelled.digest() == study.digest()


def test_a_study_without_these_keys_says_nothing_of_them() -> None:
    text = load().canonical().decode()

    new = ("proximal", "server_", "trim", "norm_bound", "compression")
    assert [key for key in new if f'"{key}' in text] == []


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (strategy("fedavg", "proximal=0.1"), ("GLD-C140", "aggregation.proximal")),
        (strategy("fedprox"), ("GLD-C140", "aggregation.proximal")),
        (strategy("median", "trim=0.4"), ("GLD-C140", "aggregation.trim")),
        (strategy("trimmed-mean"), ("GLD-C140", "aggregation.trim")),
        (strategy("norm-bound"), ("GLD-C140", "aggregation.norm_bound")),
        (
            strategy("fedadam", "server_learning_rate=0.1", "norm_bound=1"),
            ("GLD-C140", "aggregation.norm_bound"),
        ),
        (
            strategy("median", "min_sites=2"),
            ("GLD-C142", "aggregation.min_sites"),
        ),
        (strategy("trimmed-mean", "trim=0.3"), ("GLD-C142", "aggregation.trim")),
        (
            (*ALL["norm-bound"], "training.optimizer=adam"),
            ("GLD-C143", "training.optimizer"),
        ),
        (
            (*ALL["norm-bound"], "training.adaptive_clip={}"),
            ("GLD-C143", "training.adaptive_clip"),
        ),
        (
            (*ALL["scaffold"], "training.momentum=0.9"),
            ("GLD-C144", "training.momentum"),
        ),
        (
            (*ALL["scaffold"], "training.local_steps=1"),
            ("GLD-C145", "training.local_steps"),
        ),
        (strategy("fedprox", "proximal=0.25"), ("GLD-C146", "aggregation.proximal")),
        (strategy("median", "trim=0.5"), ("GLD-C012", "aggregation.trim")),
        (
            strategy("fedadam", "server_learning_rate=nan"),
            ("GLD-C012", "aggregation.server_learning_rate"),
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(
    overrides: tuple[str, ...], found: tuple[str, str]
) -> None:
    assert mistakes(*overrides) == [found]


@pytest.mark.parametrize("name", ["scaffold", "median", "trimmed-mean", "norm-bound"])
def test_what_reads_each_update_is_refused_where_only_a_sum_is_seen(name: str) -> None:
    joint = ("privacy.mechanism=joint-noise", "training.local_steps=1")

    found = mistakes(*ALL[name], *joint, "aggregation.compression=int8")

    assert ("GLD-C141", "aggregation.strategy") in found
    assert ("GLD-C141", "aggregation.compression") in found


def test_a_misspelt_strategy_and_key_are_named_with_the_nearest() -> None:
    with pytest.raises(FileError) as caught:
        load("aggregation.strategy=fedadem", "aggregation.server_lerning_rate=0.1")

    told = str(caught.value)
    assert '"fedadam"' in told
    assert "server_learning_rate" in told


@pytest.mark.parametrize(
    ("trim", "num_sites", "left_out"), [(0.29, 100, 29), (0.2, 5, 1), (0.1, 30, 3)]
)
def test_what_is_trimmed_is_what_was_written(
    trim: float, num_sites: int, left_out: int
) -> None:
    study = load(*strategy("trimmed-mean", f"trim={trim}", "min_sites=100"), *SITES)

    assert study.aggregation.num_trimmed(num_sites) == left_out


SITES = ("simulation.sites=100",)
