"""A disk that takes nothing: told with the folder, no traceback, an honest code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from guilder_server.init import init_local
from guilder_simulations.studies import path_of

# In a mount namespace of its own, so that root too is refused; nothing stays mounted.
IN_ITS_OWN_MOUNT = (
    'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
)


def on_read_only(folder: Path, *command: str) -> list[str]:
    """The command, seeing `folder` read-only; skips where that cannot be had."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        return list(command)
    inside = ["unshare", "-m", "sh", "-c", IN_ITS_OWN_MOUNT, str(folder)]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no read-only mount here")
    return [*inside, *command]


@pytest.mark.timeout(120)
@pytest.mark.slow  # several starts of the command
def test_a_read_only_disk_is_named_by_every_command_that_writes(tmp_path: Path) -> None:
    init_local(tmp_path / "c", ["a", "b"], host="127.0.0.1", port=1, control_port=2)
    folder = tmp_path / "read-only"
    folder.mkdir()
    server = tmp_path / "c" / "server" / "server.toml"
    site = tmp_path / "c" / "sites" / "a" / "site.toml"
    for path in (server, site):
        path.write_text(path.read_text().replace('"state"', f'"{folder}/state"'))
    other = tmp_path / "c" / "sites" / "b" / "site.toml"
    guilder = [sys.executable, "-m", "guilder"]
    check = ["client", "check", "--offline", "--site", str(other)]
    subprocess.run([*guilder, *check], check=True)
    commands = {
        ("server", "start", "--server", str(server)): ("GLD-R031", 1),
        ("client", "start", "--site", str(site)): ("GLD-I004", 5),
        ("simulate", str(path_of("breast-cancer")), "--out", f"{folder}/run"): (
            "GLD-R031",
            1,
        ),
        ("server", "init", "--local-sites", "a", "--dir", f"{folder}/new"): (
            "GLD-R031",
            1,
        ),
        ("privacy", "report", "--site", str(other), "--out", f"{folder}/reports"): (
            "GLD-R031",
            1,
        ),
    }
    processes = [
        subprocess.Popen(
            on_read_only(folder, *guilder, *command),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]

    for (error_id, code), process in zip(commands.values(), processes, strict=True):
        out, err = process.communicate(timeout=100)
        assert (process.returncode, out) == (code, ""), err
        assert err.startswith(error_id)
        assert "Traceback" not in err
        assert str(folder) in err or "permission" in err
