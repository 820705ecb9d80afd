"""From nothing to a study over three sites, by the documented commands alone.

Every command is a process of its own, as somebody types it; all files that people edit
are edited as text. What the sites' data is comes from outside, as it would.
"""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from guilder.consortium import free_ports
from guilder_shared.study import Study
from guilder_simulations import partition, synthetic
from guilder_simulations.studies import path_of

pytestmark = pytest.mark.timeout(900)
SITES = ("north", "harbour", "st-anna")
DATA = """
[data.biopsies]
kind = "parquet"
path = "../rows-{name}.parquet"
public_size = 150

[budget.patients]
epsilon = 6.0
delta = 5e-4
datasets = ["biopsies"]
"""
HOLDOUT = """
[holdout.biopsies]
kind = "parquet"
path = "../../holdout.parquet"
"""


class Desk:
    """A folder in which people type commands; what they started ends with the test."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self._stack = folder, stack

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Type a command that goes on."""
        process = subprocess.Popen(
            [sys.executable, "-m", "guilder", *words],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._stack.callback(process.wait, 60)
        self._stack.callback(process.terminate)
        return process

    def type(self, line: str) -> str:
        """Type a command, wait for its end; it must have done what it was asked."""
        words = line.split()
        assert words[0] == "guilder"
        done = subprocess.run(
            [sys.executable, "-m", "guilder", *words[1:]],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with contextlib.ExitStack() as stack:
        yield Desk(tmp_path, stack)


def bring_data(folder: Path) -> None:
    """What institutions have: their rows, and public rows at the operator's."""
    study = Study.load(path_of("breast-cancer"), ["simulation.sites=3"])
    assert study.simulation is not None
    table = synthetic.generate(study.simulation.source, 7)
    dealt, holdout, _ = partition.split(table, study.simulation, 0.2)
    pq.write_table(holdout, folder / "holdout.parquet")
    for name, rows in zip(SITES, dealt.values(), strict=True):
        pq.write_table(rows, folder / f"rows-{name}.parquet")


def write_study(folder: Path) -> None:
    text = path_of("breast-cancer").read_text()
    for old, new in {
        "rounds = 32": "rounds = 3",
        "min_sites = 3": "min_sites = 3\nreply_quantum_s = 0\nround_deadline_s = 120",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "study.toml").write_text(text)


def joined(desk: Desk, name: str) -> None:
    """The operator invites, the engineer joins and fills in, the officer signs."""
    server = "--server consortium/server/server.toml"
    invited = desk.type(f"guilder server invite {name} {server}")
    token = re.findall(r"guilder1/\S+", invited)[0]
    desk.type(f"guilder client join {token} --dir {name}")
    desk.type(f"guilder privacy officer-key --out office-{name}")
    path, office = desk.folder / name, desk.folder / f"office-{name}"
    (path / "officer.pub").write_bytes((office / "officer.pub").read_bytes())
    site = path / "site.toml"
    site.write_text(site.read_text() + DATA.format(name=name))
    desk.type(f"guilder config check {name}/site.toml")
    key = f"--key office-{name}/officer.key"
    desk.type(f"guilder privacy budget --site {name}/site.toml --sign {key}")


def consented(desk: Desk, name: str, wait: Callable[..., Any]) -> None:
    """The engineer looks at what was offered, the officer approves, the site agrees."""
    site = f"--site {name}/site.toml"

    def offered() -> str | None:
        studies = json.loads(desk.type(f"guilder client studies list {site} --json"))
        return str(studies[0]["digest"]) if studies else None

    digest = wait(offered, timeout_s=200)
    assert "breast-cancer" in desk.type(f"guilder client studies show {digest} {site}")
    preview = desk.type(f"guilder client studies preview {digest} {site}")
    assert "verdict" in preview
    key = f"--key office-{name}/officer.key"
    desk.type(f"guilder privacy approve study.toml {site} {key} --yes")
    desk.type(f"guilder client studies accept {digest} {site}")


@pytest.mark.slow
def test_documented_commands_take_three_sites_from_nothing_to_a_verified_report(
    desk: Desk, eventually: Callable[..., Any]
) -> None:
    bring_data(desk.folder)
    write_study(desk.folder)
    (port,) = free_ports(1)
    server = "--server consortium/server/server.toml"

    desk.type(f"guilder server init --dir consortium --host 127.0.0.1 --port {port}")
    with (desk.folder / "consortium/server/server.toml").open("a") as file:
        file.write(HOLDOUT)
    desk.begin("server", "start", *server.split())
    eventually(lambda: answers(desk, f"guilder run list {server}"), timeout_s=60)
    for name in SITES:
        joined(desk, name)
        desk.begin("client", "start", "--site", f"{name}/site.toml")
        checked = f"guilder client check --site {name}/site.toml --json"
        eventually(lambda line=checked: answers(desk, line), timeout_s=60)
    assert "active" in desk.type(f"guilder server sites {server}")

    run = desk.begin("run", "submit", "study.toml", *server.split(), "--watch")
    for name in SITES:
        consented(desk, name, eventually)
    told, _ = run.communicate(timeout=300)

    assert run.returncode == 0, told
    assert "auc" in told.lower()
    for name in SITES:
        desk.type(f"guilder privacy report --site {name}/site.toml --out reports")
        verified = desk.type(f"guilder privacy verify reports/{name}.report.json")
        assert "breast-cancer" in verified
    log = desk.type(f"guilder server log {server} --json")
    kinds = [json.loads(line)["kind"] for line in log.splitlines()]
    assert kinds.count("issued") == 1 + len(SITES)  # the admin's, and each site's


def answers(desk: Desk, line: str) -> bool:
    """Whether a command works already."""
    try:
        desk.type(line)
    except AssertionError:
        time.sleep(0.5)
        return False
    return True
