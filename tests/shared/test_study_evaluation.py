"""Which charged evaluations a study may ask for."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from guilder_shared.settings.mistakes import FileError
from guilder_shared.study import Study
from guilder_shared.study import rules as study_rules
from guilder_simulations.studies import path_of

Make = Callable[..., Study]
CHARGED = {"on": "charged", "share": 1.0}


@pytest.mark.parametrize(
    ("evaluation", "privacy", "error_id"),
    [
        (CHARGED, {"unit": "site"}, "GLD-C130"),
        (CHARGED, {"mechanism": "none"}, "GLD-C131"),
        ({"on": "charged"}, {}, "GLD-C132"),
        ({"on": "none", "share": 0.5}, {}, "GLD-C132"),
        ({"on": "public-holdout", "largest_loss": 3.0}, {}, "GLD-C132"),
        ({"on": "none", "every": 4}, {}, "GLD-C132"),
        (CHARGED | {"every": 5}, {}, "GLD-C147"),  # of 16 rounds
        (CHARGED | {"every": 17}, {}, "GLD-C147"),
    ],
)
def test_what_cannot_be_charged_is_a_mistake_of_the_file(
    study_of: Make, evaluation: dict[str, Any], privacy: dict[str, Any], error_id: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        study_of(evaluation=evaluation, privacy=privacy)

    (mistake,) = caught.value.errors()
    (found,) = mistake["ctx"]["error"].found
    assert found.error_id == error_id


def test_charged_metrics_add_a_round_and_no_key_to_other_studies(
    study_of: Make,
) -> None:
    charged, plain = study_of(evaluation=CHARGED), study_of()

    assert (charged.measuring_round, plain.measuring_round) == (17, None)
    assert (charged.num_turns, plain.num_turns) == (19, 18)
    assert b"share" not in plain.canonical()
    assert Study.from_canonical(charged.canonical()) == charged


def test_an_average_of_models_is_not_measured_between_rounds(study_of: Make) -> None:
    with pytest.raises(ValidationError) as caught:
        study_of(evaluation=CHARGED | {"every": 4}, average=0.7)

    (mistake,) = caught.value.errors()
    (found,) = mistake["ctx"]["error"].found
    assert found.error_id == "GLD-C147"


@pytest.mark.parametrize("wrong", ["every = 3", "every = 99"])
def test_a_study_file_with_odd_rounds_of_measuring_is_told_so(
    wrong: str, tmp_path: Path
) -> None:
    """As a file, for the error of a file carries the ids of its mistakes."""
    text = path_of("breast-cancer").read_text()
    odd = f'on = "charged"\nshare = 1.0\n{wrong}'
    (tmp_path / "study.toml").write_text(text.replace('on = "public-holdout"', odd))

    with pytest.raises(FileError) as caught:
        Study.load(tmp_path / "study.toml")

    assert caught.value.error_id == "GLD-C147"


def test_what_contradicts_itself_in_a_study_file_has_a_files_id() -> None:
    folder = Path(study_rules.__file__).parent
    ids = {
        each
        for path in folder.glob("*.py")
        for each in re.findall(r"GLD-[A-Z]\d{3}", path.read_text())
    }

    assert len(ids) > 10
    assert {each for each in ids if not each.startswith("GLD-C")} == set()


@pytest.mark.parametrize(
    ("every", "rounds"),
    [
        (None, {17}),
        (16, {17}),
        (4, {5, 9, 13, 17}),
        (1, set(range(2, 18))),
    ],
)
def test_metrics_by_round_take_no_further_turns(
    study_of: Make, every: int | None, rounds: set[int]
) -> None:
    asked = {} if every is None else {"every": every}
    study = study_of(evaluation=CHARGED | asked)

    assert {n for n in range(30) if study.measures(n)} == rounds
    assert (study.measuring_round, study.num_turns) == (17, 19)


def test_without_charged_metrics_no_round_measures(study_of: Make) -> None:
    assert not any(study_of().measures(n) for n in range(30))
