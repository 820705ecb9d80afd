"""A journal keeps what it was told, in order, and notices every change."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from guilder_shared.chain import GENESIS, digest, signed_bytes
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey, verify
from guilder_shared.journal import Journal

NUM_ENTRIES = 12
NOBODY = 65534


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site" / "ledger.db"


@pytest.fixture
def closed(path: Path, key: SigningKey) -> Path:
    """The file of a journal with some entries, closed."""
    journal = Journal.open(path, key)
    for number in range(NUM_ENTRIES):
        journal.append("note", {"number": number, "text": "ü" * 40})
    journal.close()
    return path


def tamper(path: Path, *statements: str) -> None:
    database = sqlite3.connect(path)
    database.execute("DROP TRIGGER entries_never_change")
    database.execute("DROP TRIGGER entries_never_go")
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


def test_entries_come_back_in_order_after_opening_again(
    closed: Path, key: SigningKey
) -> None:
    journal = Journal.open(closed, key)

    numbers = [entry.content()["number"] for entry in journal.entries()]

    assert numbers == list(range(NUM_ENTRIES))
    assert [e.seq for e in journal.entries(after=10)] == [11, 12]


def test_an_entry_can_be_checked_from_the_format_page_alone(
    closed: Path, key: SigningKey
) -> None:
    first, second, *_ = Journal.read(closed, key.public_hex).entries()

    assert first.prev == GENESIS
    assert second.prev == first.hash
    assert second.hash == digest(2, "note", first.hash, second.body)
    assert verify(
        key.public_hex, signed_bytes(second.hash), bytes.fromhex(second.signature)
    )


def test_files_and_folder_are_for_the_owner_alone(path: Path, key: SigningKey) -> None:
    os.umask(0)
    journal = Journal.open(path, key)
    journal.append("note", {})

    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}, modes
    os.umask(0o022)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET body = CAST('{\"number\":99}' AS BLOB) WHERE seq = 5",
        "UPDATE entries SET kind = 'other' WHERE seq = 5",
        "UPDATE entries SET prev = hash WHERE seq = 5",
        "UPDATE entries SET hash = prev WHERE seq = 5",
        "UPDATE entries SET signature = 'zz' WHERE seq = 5",
        "UPDATE entries SET signature = "
        "(SELECT signature FROM entries WHERE seq = 4) WHERE seq = 5",
        "UPDATE entries SET seq = 99 WHERE seq = 5",
        "DELETE FROM entries WHERE seq = 5",
        "DELETE FROM entries WHERE seq = 1",
        "UPDATE entries SET seq = -seq; ",
    ],
)
def test_a_change_behind_its_back_is_found_on_opening(
    closed: Path, key: SigningKey, change: str
) -> None:
    if "-seq" in change:  # the whole chain reversed
        tamper(
            closed,
            "CREATE TABLE old AS SELECT * FROM entries",
            "DELETE FROM entries",
            f"INSERT INTO entries SELECT {NUM_ENTRIES} + 1 - seq, kind, body, prev, "
            "hash, signature FROM old",
        )
    else:
        tamper(closed, change)

    with pytest.raises(IntegrityError) as raised:
        Journal.open(closed, key)

    assert raised.value.error_id in {"GLD-I001", "GLD-I003"}


def test_an_entry_appended_by_another_key_is_found(
    closed: Path, key: SigningKey
) -> None:
    last = list(Journal.read(closed, key.public_hex).entries())[-1]
    body = b'{"number":12}'
    forged = digest(13, "note", last.hash, body)
    signature = SigningKey.generate().sign(signed_bytes(forged)).hex()
    database = sqlite3.connect(closed)
    database.execute(
        "INSERT INTO entries VALUES (13, 'note', ?, ?, ?, ?)",
        (body, last.hash, forged, signature),
    )
    database.commit()
    database.close()

    with pytest.raises(IntegrityError, match="entry 13 was not signed") as raised:
        Journal.open(closed, key)

    assert raised.value.error_id == "GLD-I003"


def test_a_flipped_byte_in_the_file_is_found_or_changes_nothing(
    closed: Path, key: SigningKey, tmp_path: Path
) -> None:
    before = list(Journal.read(closed, key.public_hex).entries())
    raw, found = closed.read_bytes(), 0

    for position in range(0, len(raw), len(raw) // 150):
        copy = tmp_path / f"{position}" / "ledger.db"
        copy.parent.mkdir()
        copy.write_bytes(
            raw[:position] + bytes([raw[position] ^ 0x41]) + raw[position + 1 :]
        )
        try:
            assert list(Journal.read(copy, key.public_hex).entries()) == before
        except IntegrityError:
            found += 1
        shutil.rmtree(copy.parent)

    assert found >= 20  # the rest fell into unused space of the pages


def test_a_change_to_an_entry_is_refused_by_the_file_itself(closed: Path) -> None:
    database = sqlite3.connect(closed)

    with pytest.raises(sqlite3.IntegrityError, match="never changed"):
        database.execute("UPDATE entries SET kind = 'x'")
    with pytest.raises(sqlite3.IntegrityError, match="never removed"):
        database.execute("DELETE FROM entries")


def test_a_second_writer_is_refused_and_a_reader_is_not(
    path: Path, key: SigningKey
) -> None:
    journal = Journal.open(path, key)
    journal.append("note", {"number": 0})

    with pytest.raises(IntegrityError) as raised:
        Journal.open(path, key)
    reader = Journal.read(path, key.public_hex)
    journal.append("note", {"number": 1})  # and the reader stands in nobody's way

    assert raised.value.error_id == "GLD-I006"
    assert reader.verify() == 2
    with pytest.raises(IntegrityError, match="takes no entry"):
        reader.append("note", {})


def test_a_writer_in_another_process_is_refused(path: Path, key: SigningKey) -> None:
    Journal.open(path, key)
    code = (
        "import sys; from pathlib import Path\n"
        "from guilder_shared.identity import SigningKey\n"
        "from guilder_shared.journal import Journal\n"
        "Journal.open(Path(sys.argv[1]), SigningKey.generate())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True
    )

    assert "GLD-I006" in done.stderr


def test_closing_lets_another_write(closed: Path, key: SigningKey) -> None:
    first = Journal.open(closed, key)
    first.close()

    second = Journal.open(closed, key)

    assert second.append("note", {}).seq == NUM_ENTRIES + 1
    with pytest.raises(IntegrityError):
        first.append("note", {})


def test_the_ledger_of_another_site_is_refused(closed: Path) -> None:
    with pytest.raises(IntegrityError) as raised:
        Journal.open(closed, SigningKey.generate())

    assert raised.value.error_id == "GLD-I003"


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0"])
def test_a_file_that_is_no_ledger_is_refused_and_left_alone(
    path: Path, key: SigningKey, content: bytes
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(IntegrityError) as raised:
        Journal.open(path, key)

    assert raised.value.error_id == "GLD-I002"
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(path: Path, key: SigningKey) -> None:
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE customers (name TEXT)")
    database.close()

    with pytest.raises(IntegrityError) as raised:
        Journal.open(path, key)

    assert raised.value.error_id == "GLD-I002"


def test_a_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from guilder_shared.errors import IntegrityError\n"
        "from guilder_shared.identity import SigningKey\n"
        "from guilder_shared.journal import Journal\n"
        "key, path = SigningKey.generate(), Path('ledger.db')\n"
        "os.chdir(sys.argv[1])\n"
        f"os.geteuid() or os.setuid({NOBODY})\n"  # root may write anywhere
        "try: Journal.open(path, key)\n"
        "except IntegrityError as error: print(error.error_id)\n"
    )
    tmp_path.chmod(0o555)

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    tmp_path.chmod(0o755)

    assert done.stdout.strip() == "GLD-I004", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_journal_in_memory_keeps_its_chain_too(key: SigningKey) -> None:
    journal = Journal.open(None, key)

    journal.append("note", {"number": 1})
    journal.append("note", {"number": 2})

    assert journal.verify() == 2
