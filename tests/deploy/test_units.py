"""Unit files: valid for systemd, hardened, and printed whole before they are used."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guilder import units
from guilder.cli import app
from guilder_server.init import init_local

ROOT = Path(__file__).parents[2]
ANALYZE = shutil.which("systemd-analyze")
MOST_EXPOSED = 4.0  # of 10, by systemd-analyze; a unit without hardening has 9.6


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a consortium")  # with a space in its name
    init_local(folder, ["a"], host="127.0.0.1", port=443, control_port=2)
    return folder


def told(home: Path, room: str, *words: str) -> str:
    file = {"client": "sites/a/site.toml", "server": "server/server.toml"}[room]
    option = {"client": "--site", "server": "--server"}[room]
    words = (room, "install-service", option, str(home / file), *words)
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize("room", ["client", "server"])
@pytest.mark.parametrize("user", ["daemon", ""])
def test_systemd_finds_nothing_wrong_with_a_unit(
    home: Path, tmp_path: Path, room: str, user: str
) -> None:
    options = ["--system", user] if user else []
    text = told(home, room, "--print", *options)
    path = tmp_path / f"guilder-{room}.service"
    path.write_text(text)
    assert ANALYZE

    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", *([] if user else ["--user"]), str(path)],
        capture_output=True, text=True, check=False,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip

    own = [line for line in done.stderr.splitlines() if "guilder-" in line]
    assert own == []


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize("room", ["client", "server"])
def test_a_unit_of_the_machine_is_hardened(
    home: Path, tmp_path: Path, room: str
) -> None:
    path = tmp_path / f"guilder-{room}.service"
    path.write_text(told(home, room, "--print", "--system", "daemon"))
    assert ANALYZE

    done = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--no-pager",
         f"--threshold={int(10 * MOST_EXPOSED)}", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-400:]


def test_what_the_user_may_not_have_is_not_asked_for(home: Path) -> None:
    own = told(home, "client", "--print")
    machines = told(home, "client", "--print", "--system", "daemon")

    assert "NoNewPrivileges=yes" in own
    assert "LimitCORE=0" in own  # a core would hold rows
    assert "ProtectSystem" not in own
    assert "ProtectSystem=strict" in machines
    assert "User=daemon" in machines
    assert f'ReadWritePaths="{home}/sites/a/state"' in machines


def test_only_a_server_below_1024_may_bind_there(home: Path) -> None:
    server = told(home, "server", "--print", "--system", "daemon")
    client = told(home, "client", "--print", "--system", "daemon")

    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in server
    assert "AmbientCapabilities=\n" in client


def test_a_lasting_error_is_not_tried_for_ever(home: Path) -> None:
    text = told(home, "client", "--print")

    assert "Restart=on-failure" in text
    assert "RestartPreventExitStatus=2 4 5" in text


def test_the_file_that_is_written_is_the_one_that_is_printed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("guilder.service_commands._has_systemd", lambda: True)
    monkeypatch.setattr("guilder.service_commands._lingers", lambda: False)

    printed = told(home, "client")
    (written,) = (tmp_path / "systemd" / "user").iterdir()

    assert written.name == "guilder-client.service"
    assert written.read_text() in printed
    assert "GLD-M009" in printed
    assert "loginctl enable-linger" in printed
    assert "systemctl --user enable --now guilder-client.service" in printed


def test_nothing_is_written_with_print(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    told(home, "client", "--print")

    assert list(tmp_path.iterdir()) == []


def test_a_command_with_spaces_and_percent_signs_reaches_the_program_whole(
    tmp_path: Path,
) -> None:
    """systemd reads its own quotes; here its rules are undone and compared."""
    words = (sys.executable, "-m", "guilder", "100% $HOME", 'a "b"', "c\\d")
    service = units.Service("client", "x", words, (tmp_path,))

    (line,) = [
        line.removeprefix("ExecStart=")
        for line in units.unit(service, user=None).splitlines()
        if line.startswith("ExecStart=")
    ]

    undone = [w.replace("%%", "%").replace("$$", "$") for w in shlex.split(line)]
    assert tuple(undone) == words


@pytest.mark.parametrize(("code", "runs"), [(0, 1), (2, 1), (4, 1), (5, 1), (3, 2)])
def test_the_crontab_line_starts_again_where_that_may_help(
    tmp_path: Path, code: int, runs: int
) -> None:
    """The line itself is run, with a program that fails once and then ends."""
    script = f"echo run >> runs; [ $(wc -l < runs) -gt 1 ] && exit 0; exit {code}"
    service = units.Service("client", "x", ("sh", "-c", script), (tmp_path,))
    line = units.cron_line(service, tmp_path / "log").removeprefix("@reboot ")
    line = line.replace("\\%", "%").replace("sleep 10", "sleep 0")

    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=False, timeout=20)

    assert (tmp_path / "runs").read_text().count("run") == runs


def test_the_units_in_deploy_are_what_the_command_writes() -> None:
    for room in ("client", "server"):
        service = units.Service(
            room=room,
            who={"client": "site NAME", "server": "https://fl.example.org"}[room],
            command=(
                "/opt/guilder/bin/guilder", room, "start", f"--{_option(room)}",
                f"/etc/guilder/{_option(room)}.toml",
            ),
            writable=(Path(f"/var/lib/guilder/{room}"),),
            low_port=room == "server",
        )  # fmt: skip
        kept = (ROOT / "deploy" / "systemd" / service.name).read_text()

        assert kept == units.unit(service, user="guilder")


def _option(room: str) -> str:
    return {"client": "site", "server": "server"}[room]
