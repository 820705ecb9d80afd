"""What the engineer types counts once the officer has signed it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from guilder_client import policy, terms
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_shared.errors import BudgetSpent, EnrolmentError
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Offer, Verdict
from guilder_shared.officer import Officer, put
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

SiteAt = Callable[..., Site]


def study() -> Study:
    column = {"kind": "number", "low": 0.0, "high": 1.0}
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "t", "recipe": "tabular-classification", "purpose": "p"},
            "data": {
                "kind": "table",
                "dataset": "d",
                "target": "y",
                "columns": {"x": column},
            },
            "model": {"name": "logistic"},
            "training": {
                "rounds": 1,
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
            "aggregation": {"min_sites": 1},
            "evaluation": {"on": "none"},
        }
    )


def offer(run_id: str) -> Offer:
    asked = study()
    return Offer(run_id, asked.canonical(), accounting.solve(asked))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_text("x,y\n0.2,0\n0.9,1\n")
    return tmp_path


def officer_of(folder: Path) -> Officer:
    return Officer(SigningKey.load(folder / "officer.key"), site="a")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("epsilon = 6.0\ndelta", "epsilon = 60.0\ndelta", "[budget.people]"),
        ("delta = 1e-05", "delta = 1e-04", "[budget.people]"),
        ("public_size = 100", "public_size = 90", "90 rows, signed is 100 rows"),
        ("# public_persons = 100", "public_persons = 9", "9 persons"),
        ("[budget.people]", "[budget.patients]", "no budget 'patients'"),
        (
            'datasets = ["d"]',
            'datasets = ["d"]\nperiod = { days = 30, epsilon = 1.0 }',
            "1 in 30 days",
        ),
    ],
)
def test_an_edited_line_keeps_the_site_from_starting_until_the_officer_signs(
    site_at: SiteAt, folder: Path, old: str, new: str, named: str
) -> None:
    site_at(folder).ledger.shut()
    path = folder / "site.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    settings = SiteFile.load(path)

    with pytest.raises(BudgetSpent) as raised:
        Site.open(settings)

    assert (raised.value.error_id, raised.value.exit_code) == ("GLD-B020", 4)
    assert named in raised.value.what
    for order in terms.sign(settings, officer_of(folder), days=1):
        put(order, folder / "state" / "orders")
    Site.open(settings).ledger.shut()


def test_what_was_signed_with_the_engineers_key_counts_nothing(
    site_at: SiteAt, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site_at(folder).ledger.shut()
    path = folder / "site.toml"
    path.write_text(path.read_text().replace("epsilon = 6.0\nd", "epsilon = 60.0\nd"))
    settings = SiteFile.load(path)
    engineer = Officer(SigningKey.load(folder / "signing.key"), site="a")
    for order in terms.sign(settings, engineer, days=1):
        put(order, folder / "state" / "orders")

    with pytest.raises(BudgetSpent, match="signed is epsilon 6"):
        Site.open(settings)

    assert "GLD-B013" in caplog.text


def test_an_order_that_arrives_while_the_site_works_holds_from_the_next_offer_on(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder, lambda text: text.replace('"auto"', '"ask"'))
    before = policy.consider(site, offer("r1"))
    (folder / "state" / "orders" / "half.json").write_text('{"schema":')

    asked = study()
    approval = officer_of(folder).approve(
        asked.digest(), "t", epsilon=2.0, delta=1e-6, days=1
    )
    put(approval, folder / "state" / "orders")
    after = policy.consider(site, offer("r1"))
    put(officer_of(folder).revoke(approval.order_id), folder / "state" / "orders")
    revoked = policy.consider(site, offer("r2"))

    assert "GLD-S006" in before.reason
    assert after.verdict == Verdict.ACCEPTED
    assert revoked.verdict == Verdict.BUSY  # the server may wait for a decision
    assert "GLD-S006" in revoked.reason


def test_a_budget_lowered_while_the_site_works_refuses_the_next_offer(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder)
    lowered = officer_of(folder).budget("people", 1.0, 1e-5, ["d"])
    put(lowered, folder / "state" / "orders")

    answer = policy.consider(site, offer("r1"))

    assert answer.verdict == Verdict.REFUSED_BY_BUDGET
    assert site.ledger.grants() == []


@pytest.mark.parametrize("text", [None, "", "z" * 64, "ab" * 31])
def test_without_the_officers_public_key_nothing_starts(
    site_at: SiteAt, folder: Path, text: str | None
) -> None:
    site_at(folder).ledger.shut()
    path = folder / "officer.pub"
    path.unlink() if text is None else path.write_text(text)

    with pytest.raises(EnrolmentError) as raised:
        Site.open(SiteFile.load(folder / "site.toml"))

    assert raised.value.error_id == "GLD-E040"
