"""What the officer and the engineer may hand to Guilder by mistake or on purpose.

Every file is refused by name, with the exit code that its kind of error has.
"""

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guilder.cli import app
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_server.init import LocalData, init_local
from guilder_shared import reports
from guilder_shared.errors import GuilderError
from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal
from guilder_shared.officer import Officer, make_key, put
from guilder_shared.privacy.ledger import Ledger
from guilder_simulations.studies import path_of

STUDY = str(path_of("breast-cancer"))
DATA = LocalData(dataset="biopsies", public_size=140)


@pytest.fixture
def homes(tmp_path: Path) -> dict[str, Path]:
    """Two sites of one consortium, each with a ledger that its officer began."""
    init_local(
        tmp_path, ["a", "b"], host="127.0.0.1", port=1, control_port=2, data=DATA
    )
    for name in ("a", "b"):
        opened(tmp_path / "sites" / name).ledger.shut()
    return {name: tmp_path / "sites" / name for name in ("a", "b")}


def opened(home: Path) -> Site:
    return Site.open(SiteFile.load(home / "site.toml"))


def refused(*words: str) -> tuple[str, int]:
    """The id and the exit code with which a command ends."""
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, GuilderError), result.output
    return result.exception.error_id, result.exception.exit_code


def start(home: Path) -> tuple[str, int]:
    return refused("client", "start", "--site", str(home / "site.toml"))


def checked(home: Path, study: Path) -> tuple[str, int]:
    """What `client check` finds wrong with a study, and its exit code."""
    words = ["--site", str(home / "site.toml"), "--study", str(study), "--offline"]
    result = CliRunner().invoke(app, ["client", "check", *words])
    if isinstance(result.exception, GuilderError):
        return result.exception.error_id, result.exception.exit_code
    found = re.search(r"FAIL .*(GLD-[A-Z]\d{3})", result.output)
    return (found[1] if found else result.output), result.exit_code


def report_of(home: Path, folder: Path) -> Path:
    with opened(home).ledger as ledger:
        return reports.write(ledger, folder)


def test_a_ledger_of_a_newer_guilder(homes: dict[str, Path]) -> None:
    home = homes["a"]
    shutil.rmtree(home / "state")
    key = SigningKey.load(home / "signing.key")
    journal = Journal.open(home / "state" / "ledger.db", key)
    head = {"format": 9, "site": "a", "public_key": key.public_hex}
    journal.append("ledger", {**head, "time": "2026-01-31T12:00:00Z"})
    journal.close()

    assert start(home) == ("GLD-I061", 5)


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.02])
def test_a_ledger_that_was_cut_off(homes: dict[str, Path], kept: float) -> None:
    path = homes["a"] / "state" / "ledger.db"
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * kept)])

    # SQLite may see that pages are missing, or an entry lacks its end.
    assert start(homes["a"]) in (("GLD-I002", 5), ("GLD-I001", 5))


def test_a_ledger_emptied(homes: dict[str, Path]) -> None:
    (homes["a"] / "state" / "ledger.db").write_bytes(b"")

    assert start(homes["a"]) == ("GLD-I103", 5)


def test_a_ledger_that_another_client_writes(homes: dict[str, Path]) -> None:
    with opened(homes["a"]).ledger:
        assert start(homes["a"]) == ("GLD-I006", 5)


def test_a_ledger_of_another_site_or_another_key(homes: dict[str, Path]) -> None:
    a, b = homes["a"], homes["b"]
    shutil.rmtree(a / "state")
    shutil.copytree(b / "state", a / "state")

    assert start(a) == ("GLD-I003", 5)
    shutil.copy(b / "signing.key", a / "signing.key")
    assert start(a) == ("GLD-I016", 5)


def test_a_clock_that_ran_backwards_is_let_be_and_said(
    homes: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with opened(homes["a"]).ledger as ledger:
        before = ledger.entries()[-1].content()["time"]
    yesterday = time.time() - 86_400
    key = SigningKey.load(homes["a"] / "signing.key")
    path = homes["a"] / "state" / "ledger.db"
    officer = (homes["a"] / "officer.pub").read_text().strip()
    with Ledger.open(
        path, key, site="a", officer=officer, clock=lambda: yesterday
    ) as ledger:
        ledger.exclude("biopsies", "c" * 64, in_force=True)
        after = ledger.entries()[-1].content()["time"]

    assert after == before
    assert "behind the newest entry" in caplog.text


def test_another_officers_key(homes: dict[str, Path], tmp_path: Path) -> None:
    home = homes["a"]
    make_key(tmp_path / "thief")
    shutil.copy(tmp_path / "thief" / "officer.pub", home / "officer.pub")

    assert start(home) == ("GLD-B017", 4)
    (home / "officer.pub").write_text("no key\n")
    assert start(home) == ("GLD-E040", 3)


def test_orders_of_another_officers_key_or_for_another_site(
    homes: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a = homes["a"]
    make_key(tmp_path / "thief")
    text = (a / "site.toml").read_text().replace("epsilon = 6.0", "epsilon = 60.0")
    (a / "site.toml").write_text(text)
    sign = ["privacy", "budget", "--site", str(a / "site.toml"), "--sign", "--key"]
    signed = CliRunner().invoke(app, [*sign, str(tmp_path / "thief" / "officer.key")])
    assert signed.exit_code == 0, signed.output

    assert start(a) == ("GLD-B020", 4)
    assert "GLD-B013" in caplog.text
    for order in (homes["b"] / "state" / "orders").iterdir():
        shutil.copy(order, a / "state" / "orders" / f"b-{order.name}")
    assert start(a) == ("GLD-B020", 4)
    assert "GLD-B018" in caplog.text


def test_a_delta_too_large_for_the_public_size(
    homes: dict[str, Path], tmp_path: Path
) -> None:
    text = Path(STUDY).read_text().replace("delta = 1e-4", "delta = 9e-3")
    (tmp_path / "study.toml").write_text(text)
    study = tmp_path / "study.toml"
    assert checked(homes["a"], study) == (
        "GLD-C012",
        2,
    )  # a study may not even ask that
    text = Path(STUDY).read_text().replace("delta = 1e-4", "delta = 9e-4")
    (tmp_path / "study.toml").write_text(text)
    site = (homes["a"] / "site.toml").read_text()
    (homes["a"] / "site.toml").write_text(site.replace("= 140 ", "= 2000 "))
    key = homes["a"].parents[1] / "officers" / "a" / "officer.key"
    where = ["--site", str(homes["a"] / "site.toml"), "--key", str(key)]
    signed = CliRunner().invoke(app, ["privacy", "budget", "--sign", *where])
    assert signed.exit_code == 0, signed.output
    assert checked(homes["a"], study) == ("GLD-S032", 4)


def test_an_epsilon_that_no_plan_can_meet(tmp_path: Path) -> None:
    text = Path(STUDY).read_text().replace("epsilon = 3.0", "epsilon = 1e-9")
    (tmp_path / "study.toml").write_text(text)

    assert refused("privacy", "plan", str(tmp_path / "study.toml")) == ("GLD-P001", 2)


def test_a_report_of_another_site(homes: dict[str, Path], tmp_path: Path) -> None:
    reported = {name: report_of(home, tmp_path) for name, home in homes.items()}
    exported = tmp_path / "b.jsonl"
    words = ["--site", str(homes["b"] / "site.toml"), "--out", str(exported)]
    assert CliRunner().invoke(app, ["privacy", "export", *words]).exit_code == 0
    keys = {n: SigningKey.load(h / "signing.key").public_hex for n, h in homes.items()}

    def verify(*words: str) -> tuple[str, int]:
        return refused("privacy", "verify", str(reported["a"]), *words)

    assert verify("--key", keys["b"]) == ("GLD-I072", 5)
    assert verify("--ledger", str(exported)) == ("GLD-I073", 5)


def newer(text: str) -> str:
    return text.replace('"guilder-report-', '"guilder-report-9', 1)


def cut(text: str) -> str:
    return text[: len(text) // 2]


def empty(_: str) -> str:
    return ""


@pytest.mark.parametrize(
    ("change", "error_id"),
    [(newer, "GLD-I070"), (cut, "GLD-I071"), (empty, "GLD-I011")],
)
def test_a_report_of_a_newer_form_or_cut_off(
    homes: dict[str, Path], tmp_path: Path, change: Any, error_id: str
) -> None:
    path = report_of(homes["a"], tmp_path)
    text = path.read_text()
    assert json.loads(text)
    path.write_text(change(text))

    assert refused("privacy", "verify", str(path)) == (error_id, 5)


def test_an_order_that_was_edited_counts_nothing(
    homes: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    key = homes["a"].parents[1] / "officers" / "a" / "officer.key"
    officer = Officer(SigningKey.load(key), site="a")
    path = put(
        officer.budget("people", 7.0, 1e-5, ["biopsies"]),
        homes["a"] / "state" / "orders",
    )
    path.write_text(path.read_text().replace('"epsilon":7', '"epsilon":70'))

    with opened(homes["a"]).ledger as ledger:
        assert ledger.budgets()["people"].epsilon == 6
    assert "GLD-B013" in caplog.text
