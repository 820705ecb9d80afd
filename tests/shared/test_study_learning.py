"""The optional keys of [training]: bounded, refused where nobody would read them."""

import pytest

from guilder_shared.settings.mistakes import FileError
from guilder_shared.study import Study
from guilder_simulations.studies import path_of


def ids(*overrides: str, name: str = "card-fraud") -> list[tuple[str, str]]:
    """Id and key of each mistake."""
    with pytest.raises(FileError) as caught:
        Study.load(path_of(name), overrides)
    return [(each.error_id, each.key) for each in caught.value.mistakes]


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (["training.floor=1"], ("GLD-C120", "training.floor")),
        (["training.betas=[0.9, 0.99]"], ("GLD-C120", "training.betas")),
        (
            ["training.optimizer=adam", "training.momentum=0.9"],
            ("GLD-C120", "training.momentum"),
        ),
        (
            ["training.local_steps=1", "training.adaptive_clip={}"],
            ("GLD-C121", "training.local_steps"),
        ),
        (
            ["training.augment={ copies = 2, flip = true }"],
            ("GLD-C122", "training.augment.flip"),
        ),
        (["training.augment={ copies = 2 }"], ("GLD-C013", "training.augment.copies")),
        (["training.average=1.0"], ("GLD-C012", "training.average")),
        (
            ["training.adaptive_clip={ share = 0.5 }"],
            ("GLD-C012", "training.adaptive_clip.share"),
        ),
    ],
)
def test_a_key_that_nobody_would_read_is_refused(
    overrides: list[str], found: tuple[str, str]
) -> None:
    assert ids(*overrides) == [found]


@pytest.mark.parametrize("switch", ["optimizer=adam", "momentum=0.9"])
def test_what_lives_in_a_turn_needs_several_steps(switch: str) -> None:
    found = ids(f"training.{switch}", name="breast-cancer")

    assert found == [("GLD-C121", "training.local_steps")]


def test_all_switches_travel_and_come_back_the_same() -> None:
    overrides = (
        "training.optimizer=adam",
        "training.betas=[0.9, 0.99]",
        "training.floor=0.5",
        "training.average=0.9",
        "training.augment={ copies = 4, mask = 0.1, jitter = 0.05 }",
        "training.adaptive_clip={ quantile = 0.7 }",
    )
    study = Study.load(path_of("card-fraud"), overrides)

    travelled = Study.from_canonical(study.canonical())

    assert travelled.training == study.training
    assert travelled.digest() == study.digest()


def test_a_study_without_switches_says_nothing_of_them() -> None:
    text = Study.load(path_of("card-fraud")).canonical().decode()

    new = ("momentum", "betas", "floor", "average", "augment", "adaptive_clip")
    assert [key for key in new if f'"{key}"' in text] == []
