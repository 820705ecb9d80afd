"""Whose presence a study hides: what it must say with each unit."""

from collections.abc import Callable
from typing import Any

import pytest

from guilder_shared.settings.mistakes import FileError
from guilder_shared.study import Study

Make = Callable[..., Study]
PERSON = {"unit": "person", "max_records": 20}


def written(
    study_of: Make, privacy: dict[str, Any], person: str | None = None
) -> dict[str, Any]:
    study = study_of().model_dump(mode="json", by_alias=True, exclude_none=True)
    study["privacy"] |= privacy
    if person is not None:
        study["data"]["person"] = person
    return study


def read(study_of: Make, privacy: dict[str, Any], person: str = "who") -> Study:
    return Study.model_validate(written(study_of, privacy, person))


@pytest.mark.parametrize(
    ("privacy", "person", "key"),
    [
        ({"unit": "person"}, "who", "max_records"),
        (PERSON, None, "person"),
        ({"unit": "record", "max_records": 20}, None, "max_records"),
        ({"unit": "site", "max_records": 20}, "who", "max_records"),
        ({"max_sites_per_person": 2}, "who", "max_sites_per_person"),
        ({**PERSON, "max_sites_per_person": 0}, "who", "max_sites_per_person"),
        ({"unit": "person", "max_records": 0}, "who", "max_records"),
        ({"unit": "person", "max_records": 10_001}, "who", "max_records"),
        ({"unit": "household"}, None, "unit"),
    ],
)
def test_a_unit_that_does_not_say_what_it_needs_is_refused_with_the_fix(
    study_of: Make, privacy: dict[str, Any], person: str | None, key: str
) -> None:
    import rfc8785

    with pytest.raises(FileError) as refused:
        Study.from_canonical(rfc8785.dumps(written(study_of, privacy, person)))

    assert key in str(refused.value)
    assert "fix:" in str(refused.value)


def test_the_column_of_the_person_is_asked_for_only_where_it_is_read(
    study_of: Make,
) -> None:
    record, person = read(study_of, {}), read(study_of, PERSON)

    assert (record.identity, person.identity) == (None, "who")
    assert record.site_contract.person is None
    assert person.site_contract.person == "who"
    assert person.public_contract.person is None


def test_the_cap_is_part_of_what_a_site_approves(study_of: Make) -> None:
    caps = ({**PERSON, "max_records": cap} for cap in (1, 20))
    digests = {read(study_of, privacy).digest() for privacy in caps}

    assert len(digests) == 2


def test_a_study_without_persons_keeps_its_digest(study_of: Make) -> None:
    assert b"max_" not in read(study_of, {}).canonical()
