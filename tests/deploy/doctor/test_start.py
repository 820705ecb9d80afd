"""What `guilder client start` looks at first: it refuses, or goes on with warnings."""

import os
import resource
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guilder.cli import app
from guilder.doctor import start
from guilder_client.settings import SiteFile
from guilder_server.init import init_local


@pytest.fixture
def home(tmp_path: Path) -> Path:
    init_local(tmp_path, ["a"], host="127.0.0.1", port=1, control_port=2)
    return tmp_path / "sites" / "a"


def refused(home: Path) -> tuple[str, int]:
    """The id and the exit code with which the client does not start."""
    done = CliRunner().invoke(app, ["client", "start", "--site", f"{home}/site.toml"])
    told, why, fix = done.stderr.splitlines()
    assert why.startswith("  why: ")
    assert fix.startswith("  fix: ")
    return told.split()[0], done.exit_code


def warned(home: Path) -> set[str]:
    return {each.id for each in start.check(SiteFile.load(home / "site.toml"))}


def test_a_missing_key_ends_the_start_before_the_ledger_is_opened(home: Path) -> None:
    (home / "site.key").unlink()

    assert refused(home) == ("GLD-E001", 3)
    assert not (home / "state" / "ledger.db").exists()


def test_another_authority_ends_the_start(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    init_local(other, ["a"], host="127.0.0.1", port=1, control_port=2)
    (home / "ca.pem").write_bytes((other / "sites" / "a" / "ca.pem").read_bytes())

    assert refused(home) == ("GLD-E011", 3)


def test_a_disk_that_takes_nothing_more_ends_the_start(home: Path) -> None:
    (home / "state").mkdir(exist_ok=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        found = refused(home)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert found == ("GLD-M002", 2)
    assert not (home / "state" / "ledger.db").exists()
    assert list((home / "state").glob(".guilder-check*")) == []


def test_a_proxys_password_that_others_can_read_ends_the_start(home: Path) -> None:
    file = home / "site.toml"
    text = file.read_text().replace("127.0.0.1", "fl.example.org")
    lines = 'url = "http://proxy:3128"\nuser = "u"\npassword = "word"\n'
    file.write_text(f"{text}\n[proxy]\n{lines}")
    (home / "word").write_text("secret")
    (home / "word").chmod(0o644)

    assert refused(home) == ("GLD-E002", 3)


def test_what_does_not_stop_a_client_is_a_warning(home: Path) -> None:
    (home / "state").mkdir(exist_ok=True)
    (home / "state" / "ledger.db").touch()
    ahead = time.time() + 3_600
    os.utime(home / "state" / "ledger.db", (ahead, ahead))

    assert warned(home) >= {"GLD-D001", "GLD-N096"}
