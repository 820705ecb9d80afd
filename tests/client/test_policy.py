"""What a site accepts, and what it says no to before anything is spent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guilder_client import policy, terms
from guilder_client.data.source import open_source
from guilder_client.sealed import SealedTurns
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_server.init import SITE_TOML
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Offer, Plan, Verdict
from guilder_shared.officer import Officer
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study

PARTS: dict[str, Any] = {
    "schema": 1,
    "study": {"name": "t", "recipe": "tabular-classification", "purpose": "test"},
    "data": {
        "kind": "table",
        "dataset": "d",
        "target": "y",
        "columns": {"x": {"kind": "number", "low": 0.0, "high": 1.0}},
    },
    "model": {"name": "logistic"},
    "training": {
        "rounds": 4,
        "local_steps": 1,
        "sample_rate": 1.0,
        "learning_rate": 1.0,
    },
    "privacy": {
        "unit": "record",
        "mechanism": "site-noise",
        "epsilon": 2.0,
        "delta": 1e-6,
        "clip_norm": 1.0,
    },
    "aggregation": {"min_sites": 3, "spare_turns": 1},
    "evaluation": {"on": "none"},
}


def study_with(**changes: Any) -> Study:
    parts = {key: dict(v) if isinstance(v, dict) else v for key, v in PARTS.items()}
    for name, value in changes.items():
        section, key = name.split("__")
        parts[section][key] = value
    return Study.model_validate(parts)


STUDY = study_with()
PLAN = accounting.solve(STUDY)
OFFICER = Officer(SigningKey.generate(), site="a")
OpenSite = Callable[..., Site]


@pytest.fixture
def open_site(tmp_path: Path) -> OpenSite:
    def make(change: Callable[[str], str] = lambda text: text) -> Site:
        (tmp_path / "data.csv").write_text("x,y\n0.2,0\n0.9,1\n")
        text = SITE_TOML.format(
            name="a",
            host="127.0.0.1",
            port=1,
            dataset="d",
            kind="csv",
            path="data.csv",
            public_size=100,
            epsilon=3.0,
            delta=1e-5,
            smallest_cohort=3,
            unprotected="false",
        )
        (tmp_path / "site.toml").write_text(change(text))
        settings = SiteFile.load(tmp_path / "site.toml")
        return Site(
            name="a",
            settings=settings,
            ledger=Ledger.open(
                None,
                SigningKey.generate(),
                site="a",
                officer=OFFICER.public_hex,
                orders=terms.sign(settings, OFFICER, days=1),
            ),
            sealed=SealedTurns(tmp_path / "turns"),
            sources={"d": open_source(settings.data["d"])},
        )

    return make


def test_an_offer_within_policy_is_accepted_with_the_typed_size(
    open_site: OpenSite,
) -> None:
    answer = policy.consider(open_site(), Offer("r", STUDY.canonical(), PLAN))

    assert (answer.verdict, answer.public_size) == (Verdict.ACCEPTED, 100)


@pytest.mark.parametrize(("size", "refused"), [(9_000, False), (10_000, True)])
def test_a_delta_too_large_for_the_public_size_is_refused(
    open_site: OpenSite, size: int, refused: bool
) -> None:
    site = open_site(
        lambda text: text.replace("public_size = 100 ", f"public_size = {size} ")
    )
    loose = study_with(privacy__delta=1e-4)

    answer = policy.consider(
        site, Offer("r", loose.canonical(), accounting.solve(loose))
    )

    assert ("GLD-S032" in answer.reason) == refused
    assert site.ledger.grants() == []


def test_the_same_run_offered_twice_is_one_grant_and_a_second_run_another(
    open_site: OpenSite,
) -> None:
    site = open_site()
    small = study_with(privacy__epsilon=1.0)
    plan = accounting.solve(small)

    ids = [
        policy.consider(site, Offer(run, small.canonical(), plan)).grant_id
        for run in ("r1", "r1", "r2")
    ]

    assert ids[0] == ids[1] != ids[2]
    assert len(site.ledger.grants()) == 2


@pytest.mark.parametrize(
    ("study", "error_id"),
    [
        pytest.param(
            study_with(study__recipe="mind-reading"),
            "GLD-C060",
            marks=pytest.mark.attack(
                "a server", "a recipe that is not installed", "GLD-C060"
            ),
        ),
        (study_with(model__name="oracle"), "GLD-C"),
        pytest.param(
            study_with(privacy__mechanism="none"),
            "GLD-S002",
            marks=pytest.mark.attack("a server", "a study without noise", "GLD-S002"),
        ),
        pytest.param(
            study_with(privacy__epsilon=3.5),
            "GLD-S003",
            marks=pytest.mark.attack(
                "a server", "more epsilon than the policy allows", "GLD-S003"
            ),
        ),
        pytest.param(
            study_with(data__dataset="others"),
            "GLD-S004",
            marks=pytest.mark.attack(
                "a server", "a dataset that the site did not name", "GLD-S004"
            ),
        ),
        (study_with(aggregation__min_sites=2), "GLD-S005"),
        pytest.param(
            study_with(aggregation__min_sites=1),
            "GLD-S005",
            marks=pytest.mark.attack("a server", "a cohort of one", "GLD-S005"),
        ),
        (study_with(data__target="z"), "GLD-D003"),
    ],
)
def test_what_policy_does_not_allow_is_refused_by_its_rule(
    open_site: OpenSite, study: Study, error_id: str
) -> None:
    site = open_site()

    answer = policy.consider(site, Offer("r", study.canonical(), PLAN))

    assert answer.verdict == Verdict.REFUSED_BY_POLICY
    assert answer.reason.startswith(error_id)
    assert site.ledger.grants() == []


def test_a_recipe_that_is_not_listed_is_refused(open_site: OpenSite) -> None:
    site = open_site(lambda text: text.replace("tabular-classification", "statistics"))

    answer = policy.consider(site, Offer("r", STUDY.canonical(), PLAN))

    assert "GLD-S001" in answer.reason


def asking(text: str) -> str:
    """A site whose people decide on each study."""
    return text.replace('accept = "auto"', 'accept = "ask"')


def test_where_a_person_decides_a_study_waits_for_the_officers_approval(
    open_site: OpenSite,
) -> None:
    site, offer = open_site(asking), Offer("r", STUDY.canonical(), PLAN)
    other = OFFICER.approve("0" * 64, "other", epsilon=9, delta=1e-4)
    approval = OFFICER.approve(STUDY.digest(), "t", epsilon=2.0, delta=1e-6)

    before = policy.consider(site, offer)
    site.ledger.admit(other)
    beside = policy.consider(site, offer)
    site.ledger.admit(approval)
    after = policy.consider(site, offer)

    assert "GLD-S006" in before.reason
    assert STUDY.digest() in before.reason
    assert "GLD-S006" in beside.reason
    assert after.verdict == Verdict.ACCEPTED


def test_a_study_listed_in_the_file_still_needs_the_officer(
    open_site: OpenSite,
) -> None:
    def listed(text: str) -> str:
        return asking(text).replace(
            "allow_unprotected", f'accepted = ["{STUDY.digest()}"]\nallow_unprotected'
        )

    site, offer = open_site(listed), Offer("r", STUDY.canonical(), PLAN)

    before = policy.consider(site, offer)
    site.ledger.admit(
        OFFICER.rule(
            "all",
            recipes=["tabular-classification"],
            largest_epsilon=3,
            largest_delta=1e-5,
        )
    )

    assert before.verdict == Verdict.REFUSED_BY_BUDGET
    assert "GLD-B010" in before.reason
    assert policy.consider(site, offer).verdict == Verdict.ACCEPTED


@pytest.mark.parametrize(
    "plan",
    [
        Plan(0.9 * (PLAN.noise_multiplier or 0), PLAN.num_turns, 1e-3),
        Plan(PLAN.noise_multiplier, PLAN.num_turns + 20, 1e-3),
        Plan(None, PLAN.num_turns, 1e-3),
        Plan(float("1e-300"), PLAN.num_turns, 1e-3),
    ],
)
def test_a_server_that_lies_about_the_plan_is_found_out(
    open_site: OpenSite, plan: Plan
) -> None:
    site = open_site()

    answer = policy.consider(site, Offer("r", STUDY.canonical(), plan))

    assert answer.verdict == Verdict.REFUSED_BY_POLICY
    assert answer.reason.startswith("GLD-P")
    assert site.ledger.grants() == []


@pytest.mark.parametrize(
    "study",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema": 2}',
        STUDY.canonical().replace(b'"rounds":4', b'"rounds":4,"code":"import os"'),
        STUDY.canonical().replace(b'"clip_norm":1', b'"clip_norm":-1'),
        STUDY.canonical().replace(b'"clip_norm":1', b'"clip_norm":1e999'),
    ],
)
def test_a_malformed_study_is_refused_and_nothing_breaks(
    open_site: OpenSite, study: bytes
) -> None:
    answer = policy.consider(open_site(), Offer("r", study, PLAN))

    assert answer.verdict == Verdict.REFUSED_BY_POLICY
    assert answer.reason.startswith("GLD-C")


def test_a_budget_without_room_is_refused_and_the_first_grant_stays(
    open_site: OpenSite,
) -> None:
    site = open_site()
    policy.consider(site, Offer("r1", STUDY.canonical(), PLAN))

    answer = policy.consider(site, Offer("r2", STUDY.canonical(), PLAN))

    assert answer.verdict == Verdict.REFUSED_BY_BUDGET
    assert answer.reason.startswith("GLD-B003")
    assert len(site.ledger.grants()) == 1
