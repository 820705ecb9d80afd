"""The pages on backup are run as they stand; only systemd's lines are left out."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from guilder_server.init import LocalData, init_local

PAGE = Path(__file__).parents[2] / "docs" / "backup.md"


def blocks() -> list[list[str]]:
    parts = PAGE.read_text("utf-8").split("```")[1::2]
    return [part.strip().splitlines() for part in parts]


def run(lines: list[str], folder: Path) -> str:
    """Each command of a block, as a person types it in a folder."""
    said = ""
    for line in lines:
        words = shlex.split(line)
        if words[0] == "systemctl":
            continue
        if words[0] == "guilder":
            words = [sys.executable, "-m", "guilder", *words[1:]]
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        said += done.stdout
    return said


def test_a_site_that_was_lost_is_restored_by_the_commands_of_the_page(
    tmp_path: Path,
) -> None:
    save, restore, _ = blocks()
    init_local(
        tmp_path, ["a"], host="127.0.0.1", port=1, control_port=2,
        data=LocalData(dataset="d"),
    )  # fmt: skip
    home = tmp_path / "sites" / "a"
    check = ["guilder client check --offline --site site.toml"]
    before = run(check, home)
    ledger = (home / "state" / "ledger.db").read_bytes()

    run(save, home)
    shutil.rmtree(home)
    home.mkdir()
    after = run(restore, home)

    assert "ledger intact, 4 entries" in before
    assert "ledger intact, 4 entries" in after
    assert ledger[:16] == b"SQLite format 3\0"


def test_a_servers_folder_is_saved_by_the_commands_of_the_page(tmp_path: Path) -> None:
    _, _, save = blocks()
    init_local(tmp_path, ["a"], host="127.0.0.1", port=1, control_port=2)

    run(save, tmp_path / "server")

    listed = subprocess.run(
        ["tar", "--list", "--gzip", "--file", str(tmp_path / "server-backup.tgz")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "./server.toml" in listed
