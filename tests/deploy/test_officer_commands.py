"""The officer's commands, as typed: a key elsewhere, signed terms, an approval."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_server.init import LocalData, init_local
from guilder_shared.study import Study
from guilder_simulations.studies import path_of

STUDY = str(path_of("breast-cancer"))


def guilder(
    *arguments: str, answer: str | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "guilder", "privacy", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, input=answer
    )


def told(*arguments: str) -> dict[str, Any]:
    done = guilder(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site whose officer's key was made by the command, on another computer."""
    (tmp_path / "c").mkdir()
    init_local(
        tmp_path / "c",
        ["a"],
        host="127.0.0.1",
        port=1,
        control_port=2,
        data=LocalData(dataset="biopsies", public_size=140),
    )
    home = tmp_path / "c" / "sites" / "a"
    for order in (home / "state" / "orders").iterdir():
        order.unlink()
    made = guilder("officer-key", "--out", str(tmp_path / "officer"))
    assert made.returncode == 0, made.stderr
    (home / "officer.pub").write_bytes((tmp_path / "officer/officer.pub").read_bytes())
    assert (tmp_path / "officer" / "officer.key").stat().st_mode & 0o077 == 0
    return home / "site.toml"


def test_a_site_starts_once_its_officer_has_signed_and_shows_what_holds(
    site: Path, tmp_path: Path
) -> None:
    key, where = str(tmp_path / "officer" / "officer.key"), ["--site", str(site)]
    check = [sys.executable, "-m", "guilder", "client", "check", "--offline", *where]
    before = subprocess.run(check, capture_output=True, text=True, check=False)

    carried = tmp_path / "carried"
    signed = guilder("budget", *where, "--sign", "--key", key, "--out", str(carried))
    inbox = site.parent / "state" / "orders"
    for order in carried.iterdir():
        order.rename(inbox / order.name)
    after = subprocess.run(check, capture_output=True, text=True, check=False)
    shown = told("budget", *where)

    assert (before.returncode, after.returncode) == (4, 0), after.stderr
    assert "GLD-B020" in before.stdout
    assert len(signed.stdout.splitlines()) == 3
    (budget,) = shown["budgets"]
    assert budget["epsilon"] == {"limit": 6, "spent": 0, "reserved": 0, "left": 6}
    assert shown["public_sizes"] == {"biopsies": {"rows": 140, "persons": None}}
    assert shown["not_signed"] == []
    (rule,) = shown["permits"]
    assert rule["largest_epsilon"] == 6


def test_an_approval_shows_the_cost_first_and_is_taken_back_by_its_id(
    site: Path, tmp_path: Path
) -> None:
    key, where = str(tmp_path / "officer" / "officer.key"), ["--site", str(site)]
    by = [*where, "--key", key]
    assert guilder("budget", *by, "--sign", "--days", "0").returncode == 0

    study = Study.load(path_of("breast-cancer"))
    unsure = guilder("approve", STUDY, *by, answer="n\n")
    approved = told("approve", STUDY, *by, "--yes")
    Site.open(SiteFile.load(site)).ledger.shut()
    standing = told("budget", *where)
    revoked = guilder("revoke", str(approved["order_id"]), *by)
    Site.open(SiteFile.load(site)).ledger.shut()

    assert unsure.returncode != 0
    cost = f"takes epsilon {study.privacy.epsilon:g} at delta {study.privacy.delta:g}"
    for part in (cost, "for each record", study.digest()):
        assert part in unsure.stdout
    assert [each["order_id"] for each in standing["permits"]] == [approved["order_id"]]
    assert revoked.returncode == 0, revoked.stderr
    assert told("budget", *where)["permits"] == []


@pytest.mark.slow  # several starts of the command
def test_an_office_is_handed_over_and_the_old_key_counts_no_more(
    site: Path, tmp_path: Path
) -> None:
    where = ["--site", str(site)]
    old, new = (tmp_path / name / "officer.key" for name in ("officer", "successor"))
    assert guilder("officer-key", "--out", str(new.parent)).returncode == 0
    assert guilder("budget", *where, "--sign", "--key", str(old)).returncode == 0
    Site.open(SiteFile.load(site)).ledger.shut()
    before = told("budget", *where)

    over = ["hand-over", str(new.with_suffix(".pub")), *where, "--key", str(old)]
    unsure = guilder(*over, answer="n\n")
    handed = guilder(*over, answer="y\n")
    forgotten = offline(site)
    site.with_name("officer.pub").write_bytes(new.with_suffix(".pub").read_bytes())
    (rule,) = (str(each["order_id"]) for each in before["permits"])
    revoked_by_old = guilder("revoke", rule, *where, "--key", str(old))
    ready = offline(site)
    after = told("budget", *where)
    revoked = guilder("revoke", rule, *where, "--key", str(new))
    Site.open(SiteFile.load(site)).ledger.shut()

    keys = [path.with_suffix(".pub").read_text().strip() for path in (old, new)]
    assert unsure.returncode != 0
    assert [key in unsure.stdout for key in keys] == [True, True]
    assert handed.returncode == 0, handed.stderr
    assert "GLD-B017" in forgotten.stdout
    assert forgotten.returncode == 4
    assert revoked_by_old.returncode == 0  # it can sign; the site does not listen
    assert ready.returncode == 0, ready.stdout
    assert [before["officer"], after["officer"]] == keys
    assert after["permits"] == before["permits"]
    assert revoked.returncode == 0, revoked.stderr
    assert told("budget", *where)["permits"] == []


def offline(site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "guilder", "client", "check", "--offline"]
    return subprocess.run(
        [*command, "--site", str(site)], capture_output=True, text=True, check=False
    )


def test_nobody_hands_over_to_the_key_that_signs(site: Path, tmp_path: Path) -> None:
    key = tmp_path / "officer" / "officer.key"

    done = guilder(
        "hand-over", str(key.with_suffix(".pub")),
        "--site", str(site), "--key", str(key), "--yes",
    )  # fmt: skip

    assert done.returncode == 2
    assert list((site.parent / "state" / "orders").iterdir()) == []
