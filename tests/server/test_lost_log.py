"""A server whose log of members is lost or old: told to its operator, not to a site."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guilder.cli import app
from guilder.consortium import free_ports
from guilder_server.chronicle import FILE
from guilder_server.init import init_server
from guilder_server.register import Register
from guilder_server.resident import run_server
from guilder_server.settings import ServerFile
from guilder_shared import filesystems
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey

OF_A_SITE = ("ledger.db", "site.toml", "state_dir", "site-engineer", "guilder client")


@pytest.fixture
def settings(tmp_path: Path) -> ServerFile:
    """A server as `guilder server init` leaves it."""
    init_server(tmp_path, host="127.0.0.1", port=free_ports(1)[0])
    return ServerFile.load(tmp_path / "server" / "server.toml")


def storage_of(settings: ServerFile) -> Path:
    return settings.server.storage


def opened(settings: ServerFile) -> Register:
    assert settings.enrolment is not None
    return Register.open(
        storage_of(settings), settings.enrolment, settings.keys.authority
    )


def refusal(settings: ServerFile) -> IntegrityError:
    """Why the server does not start."""
    with pytest.raises(IntegrityError) as caught:
        run_server(settings, threading.Event())
    return caught.value


def gone(settings: ServerFile) -> None:
    for path in storage_of(settings).glob(f"{FILE}*"):
        path.unlink()


def gone_but_for_its_lock(settings: ServerFile) -> None:
    (storage_of(settings) / FILE).unlink()


def another_signs(settings: ServerFile) -> None:
    assert settings.enrolment is not None
    settings.enrolment.log_key.unlink()
    SigningKey.generate().save(settings.enrolment.log_key)


def put_an_old_copy_back(settings: ServerFile) -> None:
    log = storage_of(settings) / FILE
    shutil.copy(log, log.with_name("old"))
    register = opened(settings)
    register.note("admin", "Submit", "a later entry")
    register.close()
    shutil.copy(log.with_name("old"), log)


@pytest.mark.parametrize(
    ("harm", "error_id", "word"),
    [
        (gone, "GLD-I103", "docs/backup.md"),
        (gone_but_for_its_lock, "GLD-I103", "docs/backup.md"),
        (put_an_old_copy_back, "GLD-I103", "shut out since"),
        (another_signs, "GLD-I003", "log.key"),
    ],
)
def test_an_operator_is_told_of_the_log_of_members_and_not_of_a_ledger(
    settings: ServerFile, harm: Callable[[ServerFile], None], error_id: str, word: str
) -> None:
    harm(settings)

    error = refusal(settings)

    assert error.error_id == error_id
    assert "members.db" in str(error)
    assert word in str(error)
    assert [each for each in OF_A_SITE if each in str(error)] == []


@pytest.mark.parametrize("harm", [gone, gone_but_for_its_lock])
def test_no_log_is_begun_in_the_place_of_a_lost_one(
    settings: ServerFile, harm: Callable[[ServerFile], None]
) -> None:
    harm(settings)

    again = [refusal(settings).what for _ in range(2)]

    assert again[0] == again[1]
    assert not (storage_of(settings) / FILE).exists()


def test_a_storage_that_is_shared_is_told_with_the_key_of_server_toml(
    settings: ServerFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"60 27 0:50 / {storage_of(settings)} rw shared:9 - nfs4 host:/export rw\n"
    )
    monkeypatch.setattr(filesystems.demand_local, "__kwdefaults__", {"mounts": mounts})

    error = refusal(settings)

    assert error.error_id == "GLD-I100"
    assert "storage under [server] in server.toml" in error.fix
    assert [each for each in OF_A_SITE if each in str(error)] == []


def test_an_old_copy_is_gone_on_with_when_its_people_decide_so(
    settings: ServerFile,
) -> None:
    put_an_old_copy_back(settings)

    (storage_of(settings) / f"{FILE}.lock").unlink()  # as docs/backup.md says
    register = opened(settings)

    assert [member.name for member in register.members()] == ["admin"]
    register.close()


def test_the_check_of_a_server_names_a_lost_log(
    settings: ServerFile, tmp_path: Path
) -> None:
    gone(settings)
    file = str(tmp_path / "server" / "server.toml")

    done = CliRunner().invoke(app, ["server", "check", "--server", file])

    assert done.exit_code == 5, done.stdout
    assert "GLD-I103" in done.stdout
