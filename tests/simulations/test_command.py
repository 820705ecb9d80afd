"""`guilder simulate` as users and scripts meet it: one owner, clean streams, kills."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from guilder_simulations.studies import path_of

PLAIN = ("--set", "privacy.mechanism=none")


def begun(out: Path, *more: str, rounds: int) -> "subprocess.Popen[str]":
    study = [str(path_of("breast-cancer")), "--set", f"training.rounds={rounds}"]
    options = [*PLAIN, *more, "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, "-m", "guilder", "simulate", *study, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_round(folder: Path, number: int) -> None:
    end = time.monotonic() + 60
    while not (folder / "rounds" / f"{number:03d}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_simulations_in_one_folder_one_is_refused_and_ctrl_c_is_130(
    tmp_path: Path,
) -> None:
    first = begun(tmp_path / "run", rounds=3000)
    wait_for_round(tmp_path / "run", 2)

    second = begun(tmp_path / "run", "--json", rounds=3000)
    out, err = second.communicate(timeout=100)
    first.send_signal(signal.SIGINT)
    _, told = first.communicate(timeout=100)

    assert (second.returncode, out) == (1, "")
    assert "GLD-R030" in err
    assert first.returncode == 130
    assert "go on: guilder simulate" in told
    assert "Traceback" not in told + err


def test_killed_while_it_writes_it_goes_on_and_stdout_is_data_alone(
    tmp_path: Path,
) -> None:
    killed = begun(tmp_path / "run", rounds=9)
    wait_for_round(tmp_path / "run", 3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)

    process = begun(tmp_path / "run", "--json", rounds=9)
    out, _ = process.communicate(timeout=100)

    assert process.returncode == 0
    (line,) = out.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found["rounds"] == 9
    events = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    rounds = [e["round"] for e in map(json.loads, events) if e["kind"] == "round"]
    assert rounds == list(range(1, 10))
