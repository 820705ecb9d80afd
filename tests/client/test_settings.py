"""The site file: paths from its folder, and every dataset in exactly one budget."""

from pathlib import Path

import pytest

from guilder_client.settings import SiteFile
from guilder_shared.settings.mistakes import FileError

TEXT = """\
schema = 1

[site]
name = "bank-a"
server = "https://fl.example.org:8443"
state_dir = "state"

[keys]
key = "site.key"
certificate = "site.pem"
authority = "/etc/guilder/ca.pem"
signing_key = "signing.key"
officer = "officer.pub"

[data.card-payments]
kind = "csv"
path = "../payments.csv"
public_size = 20000
map = { amount = "Betrag in €" }

[policy]
recipes = ["tabular-classification"]
largest_epsilon = 3
smallest_cohort = 2
accept = "ask"

[budget.cardholders]
epsilon = 6
delta = 1e-5
datasets = ["card-payments"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(TEXT, "utf-8")
    return path


def mistakes(path: Path, *overrides: str) -> list[tuple[str, str]]:
    with pytest.raises(FileError) as caught:
        SiteFile.load(path, overrides)
    return [(each.error_id, each.key) for each in caught.value.mistakes]


def test_a_site_file_is_read_with_paths_from_its_folder(path: Path) -> None:
    site = SiteFile.load(path)

    source = site.data["card-payments"]
    assert site.site.state_dir == path.parent / "state"
    assert site.keys.authority == Path("/etc/guilder/ca.pem")
    assert source.path == path.parent / "../payments.csv"
    assert source.map == {"amount": "Betrag in €"}
    assert site.policy.allow_unprotected is False
    assert site.budget["cardholders"].datasets == ("card-payments",)


def test_a_dataset_in_no_budget_is_refused(path: Path) -> None:
    text = TEXT.replace("[policy]", "[data.loans]\n" + DATASET + "[policy]")
    path.write_text(text, "utf-8")

    assert mistakes(path) == [("GLD-C030", "data.loans")]


def test_a_dataset_in_two_budgets_is_refused(path: Path) -> None:
    budget = '{ epsilon = 1, delta = 1e-6, datasets = ["card-payments"] }'

    found = mistakes(path, f"budget.others={budget}")

    assert found == [("GLD-C030", "data.card-payments")]


def test_a_dataset_twice_in_one_budget_is_refused(path: Path) -> None:
    twice = 'budget.cardholders.datasets=["card-payments", "card-payments"]'

    assert mistakes(path, twice) == [("GLD-C030", "data.card-payments")]


def test_a_budget_over_an_unknown_dataset_is_refused(path: Path) -> None:
    found = mistakes(path, 'budget.cardholders.datasets=["card-payments", "card"]')

    assert found == [("GLD-C030", "budget.cardholders.datasets")]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("site.server", "http://fl.example.org"),
        ("site.server", "https://user@fl.example.org"),
        ("site.server", "https://fl.example.org/path"),
        ("site.name", "Bank A"),
        ("data.card-payments.public_size", "0"),
        ("data.card-payments.public_size", '"20000"'),
        ("data.card-payments.path", '""'),
        ("policy.accept", "yes"),
        ("policy.allow_unprotected", "1"),
        ("policy.largest_epsilon", "inf"),
        ("policy.accepted", '["27e2"]'),
        ("budget.cardholders.delta", "0"),
    ],
)
def test_what_a_site_must_not_say_is_refused(path: Path, key: str, value: str) -> None:
    found = mistakes(path, f"{key}={value}")

    assert [error_id for error_id, _ in found] == ["GLD-C012"]
    assert found[0][1].startswith(key)


@pytest.mark.parametrize(
    "line",
    [
        "public_size = 20000",
        "largest_epsilon = 3",
        "smallest_cohort = 2",
        "epsilon = 6",
    ],
)
def test_nothing_that_protects_somebody_has_a_default(path: Path, line: str) -> None:
    path.write_text(TEXT.replace(f"{line}\n", ""), "utf-8")

    ((error_id, key),) = mistakes(path)

    assert error_id == "GLD-C011"
    assert key.endswith(line.split(maxsplit=1)[0])


DATASET = 'kind = "parquet"\npath = "loans.parquet"\npublic_size = 10\n'


@pytest.mark.parametrize("spelt", ["../payments.csv", "./../x/../payments.csv"])
def test_one_file_under_two_names_draws_on_one_budget(path: Path, spelt: str) -> None:
    loans = DATASET.replace("loans.parquet", spelt)
    text = TEXT.replace("[policy]", "[data.loans]\n" + loans + "[policy]")
    apart = text + '[budget.debtors]\nepsilon = 6\ndelta = 1e-5\ndatasets = ["loans"]\n'

    path.write_text(apart, "utf-8")
    assert mistakes(path) == [("GLD-C030", "data.loans.path")]

    together = text.replace('["card-payments"]', '["card-payments", "loans"]')
    path.write_text(together, "utf-8")
    assert len(SiteFile.load(path).data) == 2
