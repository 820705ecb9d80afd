"""The cost is shown before anybody approves: plan and forecast, as typed."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from guilder.cli import app
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_server.init import LocalData, init_local
from guilder_simulations.studies import path_of

STUDY = str(path_of("breast-cancer"))
DATASET = "biopsies"
AMOUNTS = 5000  # from 0: the public range of the statistics' mean


def guilder(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "guilder", "privacy", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.slow  # several starts of the command
def test_a_plan_is_drawn_and_told_the_same_to_people_and_machines(
    tmp_path: Path,
) -> None:
    picture = tmp_path / "plan.svg"
    told = guilder("plan", STUDY, "--picture", str(picture), "--json")
    changes = ("training.rounds=8", "evaluation.on=charged", "evaluation.share=1")
    text = guilder("plan", STUDY, *(w for each in changes for w in ("--set", each)))

    found: dict[str, Any] = json.loads(told.stdout)
    root = ElementTree.fromstring(picture.read_text("utf-8"))
    assert (told.returncode, text.returncode) == (0, 0), told.stderr + text.stderr
    assert found["by_turn"][-1] == [found["plan"]["num_turns"], found["epsilon"]]
    (line,) = (each for each in root if each.tag.endswith("polyline"))
    assert len(line.attrib["points"].split()) == 1 + len(found["by_turn"])
    assert "://" not in picture.read_text("utf-8").replace(
        "http://www.w3.org/2000/svg", ""
    )
    assert "for comparison, no guarantee" in text.stdout
    assert "this study" in text.stdout
    assert "records that each site holds out" in text.stdout


def test_the_plan_of_statistics_tells_the_noise_on_each_answer() -> None:
    """sqrt(4) questions share a vector; a mean's sum moves by half its range, times."""
    told = CliRunner().invoke(app, ["privacy", "plan", str(path_of("payment-figures"))])

    found = told.stdout
    assert told.exit_code == 0, told.output
    (noise,) = re.findall(r"noise multiplier ([0-9.]+) at", found)
    (count,) = re.findall(r"customers: noise of deviation ([0-9.]+) on each", found)
    (mean,) = re.findall(r"amount: noise of deviation (\S+) on the sum", found)
    assert "over 1 turn (" in found
    assert float(count) == pytest.approx(2 * float(noise), rel=2e-3)
    assert float(mean) == pytest.approx(
        2 * float(noise) * math.sqrt(3) * AMOUNTS / 2, rel=5e-3
    )
    assert "the same promise" not in found


@pytest.fixture
def site(tmp_path: Path) -> Path:
    data = LocalData(dataset=DATASET, public_size=140, epsilon=4.0, delta=1e-3 / 2)
    init_local(
        tmp_path / "c", ["a"], host="127.0.0.1", port=1, control_port=2, data=data
    )
    path = tmp_path / "c" / "sites" / "a" / "site.toml"
    Site.open(SiteFile.load(path)).ledger.shut()
    return path


@pytest.mark.slow  # several starts of the command
def test_a_forecast_shows_what_would_be_left_and_writes_nothing(site: Path) -> None:
    where = ["--site", str(site)]
    ledger = site.parent / "state" / "ledger.db"
    before = ledger.read_bytes()

    fits = guilder("forecast", STUDY, *where, "--json")
    full = guilder("forecast", STUDY, *where, "--set", "privacy.epsilon=9")

    found: dict[str, Any] = json.loads(fits.stdout)
    assert (fits.returncode, full.returncode) == (0, 4), fits.stderr
    (share,) = found["shares"]
    assert (share["lifetime"], share["spent"], share["reserved"]) == (4, 0, 0)
    assert share["remaining"] == 4 - share["this"]
    assert (found["no_room"], found["not_permitted"]) == ("", "")
    assert "GLD-B003" in full.stdout
    assert "nearest that fits: epsilon 4 with more noise, or" in full.stdout
    assert ledger.read_bytes() == before
