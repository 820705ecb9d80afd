"""What fails at a site: certificates, columns, a budget that is nearly spent."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

from guilder.cli import app
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_server.init import LocalData, init_local
from guilder_shared import certificates, drafts
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

STUDY = """\
schema = 1
[study]
name = "t"
recipe = "tabular-classification"
purpose = "test"
[data]
kind = "table"
dataset = "d"
target = "y"
[data.columns]
x = { kind = "number", low = 0, high = 1 }
[model]
name = "logistic"
[training]
rounds = 4
local_steps = 1
sample_rate = 1.0
learning_rate = 1.0
[privacy]
unit = "record"
mechanism = "site-noise"
epsilon = 5.9
delta = 1e-6
clip_norm = 1.0
[aggregation]
min_sites = 2
spare_turns = 0
[evaluation]
on = "none"
"""
ROWS = "x,y\n" + "".join(f"0.{i},{i % 2}\n" for i in range(9))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    init_local(
        tmp_path, ["a", "b"], host="127.0.0.1", port=1, control_port=2,
        data=LocalData(dataset="d", public_size=9),
    )  # fmt: skip
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "sites" / "a" / "data.csv").write_text(ROWS)
    return tmp_path


def check(home: Path, *words: str) -> tuple[int, list[Any]]:
    site = ["--site", str(home / "sites" / "a" / "site.toml"), "--json"]
    done = CliRunner().invoke(app, ["client", "check", "--offline", *site, *words])
    found = json.loads(done.stdout)["findings"]
    return done.exit_code, [f for f in found if f["state"] in ("wrong", "warning")]


def only(found: list[Any]) -> tuple[str, str]:
    """The one thing that is not well; it has a cause and a way out."""
    (each,) = found
    assert each["why"]
    assert each["fix"]
    return each["id"], each["state"]


def certify(home: Path, *, days: int, name: str = "a") -> None:
    """Another certificate of the consortium's authority for the site."""
    site = home / "sites" / "a"
    authority = certificates.load_authority(home / "server")
    key = ec.generate_private_key(ec.SECP256R1())
    old = certificates.load_certificate(site / "site.pem")
    own, other = (certificates.SITE_URI + each for each in ("a", name))
    uris = certificates.uris(old)
    names = [drafts.uri(other if each == own else each) for each in uris]
    made = drafts.leaf(
        authority, key.public_key(), name, names, ExtendedKeyUsageOID.CLIENT_AUTH, days
    )
    (site / "site.key").write_bytes(drafts.pem_key(key))
    (site / "site.pem").write_bytes(made.public_bytes(Encoding.PEM))


@pytest.mark.parametrize(
    ("days", "told", "code"),
    [(0, ("GLD-E008", "wrong"), 3), (5, ("GLD-N099", "warning"), 0)],
)
def test_a_certificate_that_has_run_out_or_will_soon_is_found(
    home: Path, days: int, told: tuple[str, str], code: int
) -> None:
    certify(home, days=days)

    exit_code, found = check(home)

    assert (exit_code, only(found)) == (code, told)


def test_a_certificate_of_another_site_is_found(home: Path) -> None:
    certify(home, days=90, name="b")

    _, found = check(home)

    assert only(found) == ("GLD-N098", "warning")


@pytest.mark.parametrize(
    ("old", "new", "error_id"),
    [
        ("x,y", "z,y", "GLD-D003"),  # a column is missing
        (ROWS[4:], "word,1\n" * 9, "GLD-D004"),  # of another type
    ],
)
def test_rows_that_do_not_fit_the_contract_are_found(
    home: Path, old: str, new: str, error_id: str
) -> None:
    data = home / "sites" / "a" / "data.csv"
    data.write_text(ROWS.replace(old, new))

    code, found = check(home, "--study", str(home / "study.toml"))

    (each,) = found
    assert (code, each["id"], each["state"]) == (2, error_id, "wrong")
    assert each["fix"]
    assert "word" not in json.dumps(found)


def test_a_budget_that_is_nearly_spent_is_found(home: Path) -> None:
    study = Study.load(home / "study.toml")
    plan = accounting.solve(study)
    settings = SiteFile.load(home / "sites" / "a" / "site.toml")
    opened = Site.open(settings)
    opened.ledger.reserve(
        run_id="run-1",
        server=settings.site.server,
        study_digest=study.digest(),
        study_name="t",
        dataset="d",
        recipe="tabular-classification",
        unit="record",
        cohort=3,
        study_epsilon=study.privacy.epsilon,
        study_delta=study.privacy.delta,
        turn_event=accounting.turn_event(study, plan),
        num_turns=study.num_turns,
        meta={},
    )
    opened.ledger.shut()

    code, found = check(home)

    assert (code, only(found)) == (0, ("GLD-S065", "warning"))
    assert "of 6 left" in found[0]["what"]
