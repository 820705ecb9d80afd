"""People with the pages in hand type what stands there, in folders of their own.

They put in only what a reader must put in: tokens, digests, names, their own address.
"""

import contextlib
import json
import re
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[3]
OPERATOR, ENGINEER = "docs/operator.md", "docs/site-engineer.md"
OFFICER, BACKUP = "docs/officer.md", "docs/backup.md"
RESEARCHER = "docs/researcher.md"
SERVER = "--server consortium/server/server.toml"
DATA = """
[data.biopsies]
kind = "parquet"
path = "{folder}/rows-{name}.parquet"
public_size = 140

[budget.patients]
epsilon = 6.0
delta = 5e-4
datasets = ["biopsies"]
"""


def bring(folder: Path) -> None:
    """What institutions have, and the operator's study."""
    from guilder_shared.study import Study
    from guilder_simulations import partition, synthetic
    from guilder_simulations.studies import path_of

    study = Study.load(path_of("breast-cancer"))
    assert study.simulation is not None
    table = synthetic.generate(study.simulation.source, 7)
    dealt, _, _ = partition.split(table, study.simulation, 0.0)
    for name, rows in zip(("north", "harbour"), dealt.values(), strict=False):
        pq.write_table(rows, folder / f"rows-{name}.parquet")
    text = path_of("breast-cancer").read_text()
    for pattern, new in {
        r"rounds = 32": "rounds = 2",
        r"min_sites = 3": "min_sites = 2\nreply_quantum_s = 0\nround_deadline_s = 120",
        r"epsilon = 3\.0": "epsilon = 2.0",
        r'on = "public-holdout".*': 'on = "none"',
        r"(?m)^rows = .*\n": "",
    }.items():
        text, num = re.subn(pattern, new, text, count=1)
        assert num, pattern
    (folder / "operator").mkdir()
    (folder / "operator/card-fraud.toml").write_text(text)
    (folder / "operator/second.toml").write_text(
        text.replace('name = "breast-cancer"', 'name = "second"')
    )


def fill_in(folder: Path, name: str) -> None:
    """site.toml as its engineer fills it in."""
    site = folder / name / "site" / "site.toml"
    text = site.read_text().replace("smallest_cohort = 3", "smallest_cohort = 2")
    site.write_text(text + DATA.format(folder=folder, name=name))
    shutil.copy(folder / "operator/card-fraud.toml", site.parent / "study.toml")


def told(reader: Any, text: str, at: str) -> Any:
    """What a command of the test's own says, as JSON; None while it fails."""
    with contextlib.suppress(AssertionError):
        found = reader.shell(text, at).splitlines()
        return json.loads(found[0]) if found else None
    time.sleep(0.5)
    return None


@pytest.mark.slow(minutes=2)  # two sites, two studies, every command of three pages
@pytest.mark.timeout(1500)
def test_operator_engineer_and_officer_type_their_pages(
    reader: Any, eventually: Callable[..., Any]
) -> None:
    from guilder.consortium import free_ports
    from guilder_shared.identity import SigningKey
    from guilder_shared.officer import read_public_key

    folder = reader.folder
    bring(folder)
    (port,) = free_ports(1)
    north, office = "north/site", "operator/consortium"
    (folder / "north").mkdir()
    (folder / "harbour").mkdir()

    def answers() -> Any:
        return told(reader, "guilder server sites --json", office)

    def offered(at: str, name: str) -> str:
        def look() -> Any:
            rows = told(reader, "guilder client studies list --json", at)
            return rows and [r["digest"] for r in rows if r["name"] == name]

        return str(eventually(look, timeout_s=200)[0])

    def consent_of_harbour(file: str, digest: str) -> None:
        key = "--key officer.key --yes"
        reader.shell(f"guilder privacy approve {folder}/operator/{file} {key}", harbour)
        reader.shell(f"guilder client studies accept {digest}", harbour)

    # the operator begins, and invites
    host = {"fl.example.org": f"127.0.0.1 --port {port}"}
    reader.type(OPERATOR, "guilder server init --dir", "operator", **host)
    server = reader.begin(OPERATOR, "guilder server start", "operator")
    eventually(answers, timeout_s=60)
    own = {"bank-a": "north"}
    invited = reader.type(OPERATOR, "guilder server invite", office, **own)
    joining = reader.begin(
        ENGINEER, "guilder client join", "north", TOKEN=invited.split()[-1]
    )
    eventually(lambda: "waits" in reader.shell("guilder server sites", office), 60)
    assert "north" in reader.type(OPERATOR, "guilder server sites", office)
    reader.type(OPERATOR, "guilder server sites --approve", office, **own)
    assert joining.wait(60) == 0
    word = reader.shell("guilder server invite harbour", office).split()[-1]
    reader.shell(f"guilder client join {word} --dir site", "harbour")
    harbour = "harbour/site"

    # engineer and officer, at both sites
    for name in ("north", "harbour"):
        fill_in(folder, name)
    reader.type(OFFICER, "guilder privacy officer-key", north)
    reader.type(ENGINEER, "guilder config check", north)
    reader.type(OFFICER, "guilder privacy budget --site site.toml --sign", north)
    reader.shell("guilder privacy officer-key --out .", harbour)
    reader.shell("guilder privacy budget --sign --key officer.key", harbour)
    reader.type(ENGINEER, "guilder client check --site site.toml", north)
    checked = "guilder client check --site site.toml --study"
    assert "READY" in reader.type(ENGINEER, checked, north)
    client = reader.begin(ENGINEER, "guilder client start", north)
    reader.go_on("guilder client start --site site.toml", harbour)

    # a study, with everybody's consent
    reader.type(OPERATOR, "guilder config check card-fraud.toml", "operator")
    run = reader.begin(OPERATOR, "guilder run submit", "operator")
    digest = offered(north, "breast-cancer")
    listed = reader.type(OPERATOR, "guilder run list", office)
    watch = reader.begin(OPERATOR, "guilder run watch", office, RUN=listed.split()[0])
    study = {"STUDY": digest[:8]}
    assert "breast-cancer" in reader.type(
        ENGINEER, "guilder client studies list", north
    )
    assert digest in reader.type(
        ENGINEER, "guilder client studies show", north, **study
    )
    preview = "guilder client studies preview"
    assert "verdict" in reader.type(ENGINEER, preview, north, **study)
    for words in ("pause", "pause --now", "pause --end"):
        reader.type(ENGINEER, f"guilder client {words}", north)
    reader.type(OFFICER, "guilder privacy plan", north)
    assert (folder / north / "plan.svg").exists()
    reader.type(OFFICER, "guilder privacy forecast", north)
    reader.type(OFFICER, "guilder privacy approve", north, said="y\n")
    reader.type(ENGINEER, "guilder client studies accept", north, **study)
    consent_of_harbour("card-fraud.toml", digest)
    told_by_run, _ = run.communicate(timeout=300)
    assert run.returncode == 0, told_by_run
    assert watch.wait(60) == 0
    assert "breast-cancer" in told_by_run

    # a second one, stopped, resumed, and refused by a person
    second = reader.shell(
        f"guilder run submit second.toml {SERVER}", "operator"
    ).strip()
    refused = offered(north, "second")
    reader.type(OPERATOR, "guilder run stop", office, RUN=second)
    reader.type(OPERATOR, "guilder run resume", office, RUN=second)
    reader.type(ENGINEER, "guilder client studies refuse", north, STUDY=refused[:8])
    ended = reader.go_on(f"guilder run watch {second}", office)
    assert ended.wait(120) == 4

    # the officer looks back
    budget = "guilder privacy budget --site site.toml"
    assert "2 spent" in reader.type(OFFICER, budget, north)
    standing = told(reader, "guilder privacy budget --json", north)
    (order,) = (each["order_id"] for each in standing["permits"])
    reader.type(OFFICER, "guilder privacy revoke", north, ORDER=order)
    reader.type(OFFICER, "guilder privacy report", north)
    reader.type(OFFICER, "guilder privacy verify", north)
    reader.shell("guilder privacy report --out reports", harbour)
    shutil.copy(
        folder / harbour / "reports/harbour.report.json", folder / north / "reports"
    )
    reader.type(OFFICER, "guilder privacy consortium", north)
    reader.type(OFFICER, "guilder privacy verifier", north)
    shutil.copy(folder / north / "reports/north.report.json", folder / north)
    signing = SigningKey.load(folder / north / "signing.key")
    keys = {
        "--key KEY": f"--key {signing.public_hex}",
        "--officer KEY": f"--officer {read_public_key(folder / north / 'officer.pub')}",
    }
    reader.type(OFFICER, "python guilder-verify.pyz", north, **keys)

    # the server is killed, backed up, and goes on
    server.kill()
    server.wait()
    reader.type(BACKUP, "tar --create --gzip --file ../server", f"{office}/server")
    reader.begin(OPERATOR, "guilder server start", "operator")
    eventually(answers, timeout_s=60)
    reader.type(OPERATOR, "guilder server log --json", office)
    assert "north" in reader.type(OPERATOR, "guilder server log --check", office)
    reader.type(OPERATOR, "guilder server revoke", office, **own)
    reader.type(OPERATOR, "guilder server revoke", office, **own)

    # the site is backed up, restored, and leaves
    client.terminate()
    client.wait(60)
    hand_over(reader, north)
    reader.type(BACKUP, "tar --create --gzip --file ../site", north)
    (folder / "north/restored").mkdir()
    reader.type(BACKUP, "tar --extract", "north/restored")
    reader.type(BACKUP, "guilder client check", "north/restored")
    reader.type(ENGINEER, "guilder client leave", north)
    reader.type(OPERATOR, "guilder server remove", office, **own)
    wheel_of_a_recipe(reader, north)
    reader.type(ENGINEER, "guilder recipe allow", north)
    reader.demand_all_typed("test_operator_engineer_and_officer_type_their_pages")


def hand_over(reader: Any, at: str) -> None:
    """To a successor; the engineer then puts the new officer.pub in place."""
    reader.shell("guilder privacy officer-key --out successor", at)
    reader.type(OFFICER, "guilder privacy hand-over", at, said="y\n")
    home = reader.folder / at
    shutil.copy(home / "successor/officer.pub", home / "officer.pub")


def wheel_of_a_recipe(reader: Any, at: str) -> None:
    reader.shell("guilder recipe new late", at)
    reader.shell("guilder recipe pack guilder-recipe-late", at)


MODELS = '''
"""A researcher's own models."""
from torch import nn


def make_resnet():
    head = nn.Linear(7200, 2)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), head)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(30522, 8), nn.Linear(8, 2)

    def forward(self, tokens):
        return self.head(self.words(tokens).mean(1))


encoder = Encoder
'''


@pytest.mark.slow(minutes=1.5)  # six simulations
@pytest.mark.timeout(1500)
def test_a_researcher_types_its_page(reader: Any) -> None:
    (reader.folder / "simulations").symlink_to(ROOT / "simulations")
    (reader.folder / "my_models.py").write_text(MODELS)

    for start in ("guilder recipe new", "guilder recipe pack"):
        reader.type(RESEARCHER, start, ".")
    (wheel,) = reader.folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:  # what pip does with it
        archive.extractall(reader.folder / "installed")
    for page in (RESEARCHER, "docs/contracts.md", "simulations/README.md"):
        while any(line.page == page for line in reader.left):
            reader.type(page, "", ".")

    assert (reader.folder / "runs/eps-1/run.json").exists()
    reader.demand_all_typed("test_a_researcher_types_its_page")
