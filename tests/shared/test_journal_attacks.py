"""Somebody moves, links, swaps or cuts the journal's files; nothing is lost unseen."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guilder_shared import filesystems
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal, _make_durable

WRITES_AND_DIES = """
import os, signal, sys
from pathlib import Path
from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal
journal = Journal.open(Path(sys.argv[1]), SigningKey.load(Path(sys.argv[2])))
for number in range(3):
    journal.append("note", {"number": number})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site" / "ledger.db"


def id_of(act: Callable[[], object]) -> str:
    with pytest.raises(IntegrityError) as raised:
        act()
    return raised.value.error_id


def written(path: Path, key: SigningKey, num: int, text: str = "") -> None:
    journal = Journal.open(path, key)
    for number in range(num):
        journal.append("note", {"number": number, "text": text})
    journal.close()


def killed_with_entries(path: Path, key: SigningKey) -> None:
    """Three entries more, which kill -9 left in the write-ahead log."""
    key.save(path.parent.parent / "key")
    child = [sys.executable, "-c", WRITES_AND_DIES, str(path)]
    done = subprocess.run([*child, str(path.parent.parent / "key")], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["ledger.db", "ledger.db-wal", "ledger.db.lock"])
def test_a_file_replaced_under_a_running_writer_takes_no_further_entry(
    path: Path, key: SigningKey, name: str
) -> None:
    journal = Journal.open(path, key)
    journal.append("note", {"number": 0})
    swapped = path.with_name(name)
    shutil.copy(swapped, path.parent / "copy")
    os.replace(path.parent / "copy", swapped)

    assert id_of(lambda: journal.append("note", {"number": 1})) == "GLD-I102"
    assert id_of(lambda: journal.append("note", {"number": 2})) == "GLD-I005"


@pytest.mark.parametrize("name", ["ledger.db", "ledger.db-wal", "ledger.db.lock"])
def test_a_file_removed_under_a_running_writer_takes_no_further_entry(
    path: Path, key: SigningKey, name: str
) -> None:
    journal = Journal.open(path, key)
    journal.append("note", {"number": 0})
    path.with_name(name).unlink()

    assert id_of(lambda: journal.append("note", {"number": 1})) == "GLD-I102"


def test_two_writers_after_the_lock_was_removed_never_write_one_number_twice(
    path: Path, key: SigningKey
) -> None:
    first = Journal.open(path, key)
    first.append("note", {"of": "first"})
    path.with_name("ledger.db.lock").unlink()
    second = Journal.open(path, key)

    second.append("note", {"of": "second"})

    assert id_of(lambda: first.append("note", {"of": "first"})) == "GLD-I102"
    second.close()
    first.close()
    again = Journal.open(path, key)
    assert [e.content()["of"] for e in again.entries()] == ["first", "second"]


def test_a_write_ahead_log_that_was_removed_after_a_kill_is_missed(
    path: Path, key: SigningKey
) -> None:
    written(path, key, 2)
    killed_with_entries(path, key)
    path.with_name("ledger.db-wal").unlink()

    assert id_of(lambda: Journal.open(path, key)) == "GLD-I103"
    assert id_of(lambda: Journal.open(path, key)) == "GLD-I103"  # and again


def test_after_a_kill_any_reader_may_have_moved_the_entries_into_the_file(
    path: Path, key: SigningKey
) -> None:
    written(path, key, 2)
    killed_with_entries(path, key)
    assert len(list(Journal.read(path, key.public_hex).entries())) == 5
    stranger = sqlite3.connect(path)  # such as sqlite3's own shell
    stranger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    stranger.close()

    journal = Journal.open(path, key)

    assert journal.append("note", {}).seq == 6


@pytest.mark.parametrize("num", [0, 1])
def test_an_old_copy_of_the_file_alone_is_missed_without_any_server(
    path: Path, key: SigningKey, num: int
) -> None:
    written(path, key, num)
    shutil.copy(path, path.parent / "old")
    written(path, key, 2)
    os.replace(path.parent / "old", path)

    assert id_of(lambda: Journal.open(path, key)) == "GLD-I103"


def test_an_old_copy_that_went_on_elsewhere_is_missed(
    path: Path, key: SigningKey
) -> None:
    written(path, key, 1)
    elsewhere = path.parent.parent / "elsewhere"
    shutil.copytree(path.parent, elsewhere)
    written(path, key, 2)
    written(elsewhere / "ledger.db", key, 4, "other")  # and longer than the first
    os.replace(elsewhere / "ledger.db", path)

    assert id_of(lambda: Journal.open(path, key)) == "GLD-I103"


def test_a_second_name_for_the_file_lets_nobody_in(path: Path, key: SigningKey) -> None:
    journal = Journal.open(path, key)
    other = path.parent.parent / "other" / "ledger.db"
    other.parent.mkdir()
    os.link(path, other)

    assert id_of(lambda: Journal.open(other, key)) == "GLD-I101"
    journal.close()
    assert id_of(lambda: Journal.open(path, key)) == "GLD-I101"
    other.unlink()
    Journal.open(path, key).close()


def test_a_folder_under_two_names_has_one_writer(path: Path, key: SigningKey) -> None:
    journal = Journal.open(path, key)
    journal.append("note", {})
    other = path.parent.parent / "other"
    other.symlink_to(path.parent)

    assert id_of(lambda: Journal.open(other / "ledger.db", key)) == "GLD-I006"


def test_a_symbolic_link_for_the_file_is_refused(path: Path, key: SigningKey) -> None:
    written(path, key, 1)
    other = path.parent.parent / "other" / "ledger.db"
    other.parent.mkdir()
    other.symlink_to(path)

    assert id_of(lambda: Journal.open(other, key)) == "GLD-I004"


def mounts_with(tmp_path: Path, kind: str, place: Path) -> Path:
    escaped = str(place).replace(" ", "\\040")
    file = tmp_path / "mountinfo"
    file.write_text(
        "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        f"60 27 0:50 / {escaped} rw shared:9 master:1 - {kind} server:/export rw\n"
    )
    return file


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse.sshfs", "fuse.x"]
)
def test_a_shared_file_system_is_refused_with_the_key_to_change(
    tmp_path: Path, key: SigningKey, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = tmp_path / "a share"
    share.mkdir()
    (tmp_path / "link").symlink_to(share)
    mounts = mounts_with(tmp_path, kind, share)
    monkeypatch.setattr(filesystems.demand_local, "__kwdefaults__", {"mounts": mounts})

    for folder in (share / "not" / "made yet", tmp_path / "link"):
        with pytest.raises(IntegrityError) as raised:
            Journal.open(folder / "ledger.db", key)
        assert raised.value.error_id == "GLD-I100"
        assert kind in raised.value.what
        assert "state_dir" in raised.value.fix
    assert list(share.iterdir()) == []
    Journal.open(tmp_path / "beside" / "ledger.db", key).close()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", "fuseblk"])
def test_a_local_disk_is_let_through(tmp_path: Path, kind: str) -> None:
    mounts = mounts_with(tmp_path, kind, tmp_path)

    assert filesystems.find(tmp_path, mounts=mounts) == (kind, str(tmp_path))
    filesystems.demand_local(tmp_path, mounts=mounts)
    filesystems.demand_local(tmp_path, mounts=tmp_path / "not Linux")


@pytest.mark.skipif(not filesystems.MOUNTS.exists(), reason="the kernel does not tell")
def test_the_kernel_names_its_own_file_systems(tmp_path: Path) -> None:
    assert filesystems.find(Path("/proc/self")) == ("proc", "/proc")
    assert filesystems.find(tmp_path)[0] not in ("", "proc")


def test_a_place_that_grants_no_write_ahead_log_or_no_full_syncs_is_refused(
    tmp_path: Path,
) -> None:
    def deaf(action: int, name: str | None, value: str | None, *_: object) -> int:
        asked = (action, name, value) == (sqlite3.SQLITE_PRAGMA, "synchronous", "FULL")
        return sqlite3.SQLITE_IGNORE if asked else sqlite3.SQLITE_OK

    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        assert id_of(lambda: _make_durable(database, tmp_path)) == "GLD-I015"
    with contextlib.closing(sqlite3.connect(tmp_path / "one")) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.set_authorizer(deaf)
        assert id_of(lambda: _make_durable(database, tmp_path)) == "GLD-I015"
    with contextlib.closing(sqlite3.connect(tmp_path / "two")) as database:
        _make_durable(database, tmp_path)
