"""Ports, folders and signals of a real machine: refused in words, left in order."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Founding = Any  # the fixture `found`; see conftest.py

AUDIT = """
import ipaddress, os, sys
def trace(event, args):
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        host = args[1][0] if isinstance(args[1], tuple) else ""
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    try:
        near = host in (None, "", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        near = False
    with open(os.environ["AUDIT_FILE"], "a") as file:
        file.write(f"{'near' if near else 'LEFT'} {event} {host}\\n")
sys.addaudithook(trace)
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "guilder", *arguments]


def begun(*arguments: str) -> subprocess.Popen[str]:
    """A command that runs beside others: each start costs seconds."""
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=120, check=False
    )


def test_a_port_or_folder_that_is_taken_is_named_with_its_exit_code(
    found: Founding,
) -> None:
    hospitals = found()
    text = hospitals.server_file.read_text()

    def other(name: str, *changes: tuple[str, str]) -> str:
        path = hospitals.server_file.with_name(name)
        changed = text
        for pattern, new in changes:
            changed = re.sub(pattern, new, changed, flags=re.MULTILINE)
        path.write_text(changed)
        return str(path)

    hospitals.start("server")
    hospitals.start("site-1")
    with hospitals.control():
        pass
    here = other("here.toml", (r"^port = .*", "port = 0"))
    port = other("port.toml", ('"state"', '"b"'))
    control = other(
        "control.toml",
        ('"state"', '"c"'),
        (r"^port = (\d+).*", r"port = 0\ncontrol_port = \1"),
    )
    starts = {"GLD-R030": (1, here), "GLD-N001": (3, port), "GLD-N054": (3, control)}
    site = str(hospitals.site_file("site-1"))

    servers = [begun("server", "start", "--server", f) for _, f in starts.values()]
    second = begun("client", "start", "--site", site)

    for (error_id, (code, _)), process in zip(starts.items(), servers, strict=True):
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (code, ""), err
        assert error_id in err
        assert "fix: " in err
        assert "Traceback" not in err
    _, err = second.communicate(timeout=120)
    assert second.returncode == 5
    assert "GLD-I006" in err
    assert hospitals.alive("server")
    assert hospitals.alive("site-1")


@pytest.mark.slow  # real servers and clients, started and ended
def test_a_run_that_nobody_joins_is_watched_stopped_and_resumed(
    found: Founding,
) -> None:
    hospitals = found()
    hospitals.start("server")
    server = ["--server", str(hospitals.server_file)]
    with hospitals.control():
        pass
    submitted = ended("run", "submit", "--json", *hospitals.arguments())
    run_id = json.loads(submitted.stdout)["run_id"]

    watcher = begun("run", "watch", run_id, *server)
    assert watcher.stdout is not None
    lines = [watcher.stdout.readline(), watcher.stdout.readline()]
    watcher.send_signal(signal.SIGINT)
    _, complaint = watcher.communicate(timeout=60)
    stopped = ended("run", "stop", run_id, *server)
    outcome = ended("run", "watch", run_id, "--json", *server)
    cut = subprocess.run(
        [
            "/bin/sh",
            "-c",
            '"$@" | head -1',
            "-",
            *command("run", "watch", run_id, *server),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    listed = ended("run", "list", "--json", *server)

    assert (submitted.returncode, submitted.stderr) == (0, "")
    assert lines == ["run-queued\n", "run-running\n"]
    assert (watcher.returncode, complaint) == (130, "")
    assert (stopped.returncode, stopped.stdout) == (0, f"{run_id} is stopping\n")
    kinds = [json.loads(line)["kind"] for line in outcome.stdout.splitlines()]
    assert (kinds[-1], outcome.returncode) == ("run-stopped", 1)
    assert "GLD-R004" in outcome.stderr
    assert cut.stdout == "run-queued\n"
    # whether the rest was written before head left is chance; how it ends is not
    assert cut.stderr in ("", outcome.stderr)
    (summary,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (summary["state"], listed.stderr) == ("stopped", "")
    with hospitals.control() as control:
        control.resume(run_id)
        control.stop(run_id)  # still nobody there: it waits, and is stopped again
        assert list(control.watch(run_id))[-1]["kind"] == "run-stopped"


@pytest.mark.slow  # real servers and clients, started and ended
def test_signals_end_server_and_client_in_a_round_and_no_byte_leaves_this_machine(
    found: Founding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(AUDIT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("AUDIT_FILE", str(tmp_path / "audit"))
    hospitals = found()
    hospitals.start_all()
    study = hospitals.study_with("training.rounds=16")
    run_id = hospitals.run(study)
    codes = {}

    with hospitals.control() as control:
        for event in control.watch(run_id):
            last = event
            for who, number, round_no in (
                ("site-1", signal.SIGTERM, 3),
                ("server", signal.SIGTERM, 6),
                ("site-2", signal.SIGINT, 9),
                ("server", signal.SIGINT, 12),
            ):
                if event.get("round") == round_no and event["kind"] == "round":
                    process = hospitals._processes[who]
                    process.send_signal(number)
                    codes[who, number] = process.wait(20)
                    hospitals.start(who)
                    # rounds of the old server may still be read from the stream: the
                    # next signal must meet a new one that has come as far as serving
                    hospitals.control().close()

    assert codes == {
        ("site-1", signal.SIGTERM): 0,
        ("server", signal.SIGTERM): 0,
        ("site-2", signal.SIGINT): 130,
        ("server", signal.SIGINT): 130,
    }
    assert last["kind"] == "run-finished", last
    for site in hospitals.sites:
        (grant,) = hospitals.grants(site)
        assert len(grant.turns) == 16
        assert hospitals.verified(site).ok
    audit = (tmp_path / "audit").read_text().splitlines()
    assert len(audit) > 8  # it does see sockets
    assert [line for line in audit if line.startswith("LEFT")] == []
