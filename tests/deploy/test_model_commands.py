"""`guilder model check`: a study's model, a model of one's own, and exit codes."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from guilder.cli import app
from guilder.endings import told
from guilder_simulations.studies import path_of

OWN = """
from torch import nn

good = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))

def bad():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))

def words():
    return nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 2))

number = 7
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the researcher's, in the current folder."""
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    return "own_models"


def check(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["model", "check", *arguments])


@pytest.mark.slow  # every shipped study
def test_a_shipped_study_s_model_can_be_trained_privately() -> None:
    said = check(str(path_of("card-fraud")), "--set", "model.hidden=[8]", "--json")

    found = json.loads(said.stdout)
    assert said.exit_code == 0
    assert (found["ok"], found["computed"]) == (True, True)
    layers = [(rule["layer"], rule["kind"]) for rule in found["rules"]]
    assert layers == [("0", "Linear"), ("2", "Linear")]
    assert found["num_trained"] == sum(rule["num_trained"] for rule in found["rules"])


def test_a_model_of_one_s_own_is_taken_from_the_current_folder(own: str) -> None:
    said = check(f"{own}:good", "--input", "3x8x8")

    assert said.exit_code == 0
    assert "can be trained privately" in said.stdout
    assert "KiB" in said.stdout
    assert str(Path.cwd()) not in sys.path


def test_every_finding_is_printed_with_its_fix_and_the_exit_code_is_2(own: str) -> None:
    said = check(f"{own}:bad", "--input", "3x8x8")

    assert said.exit_code == 2
    assert "GLD-P020 layer 1 is BatchNorm2d" in said.stdout
    assert "GLD-P061 layer 2 draws at random" in said.stdout
    assert said.stdout.count("fix:") == 2
    assert "model_fix.fix" in said.stdout


def test_tokens_are_whole_numbers_below_the_given_one(own: str) -> None:
    assert check(f"{own}:words", "--input", "5", "--tokens", "11").exit_code == 0


def test_without_a_shape_it_says_what_it_did_not_do(own: str) -> None:
    said = check(f"{own}:words")

    assert said.exit_code == 0
    assert "--input" in said.stdout


@pytest.mark.parametrize(
    ("named", "shape", "error_id"),
    [
        ("own_models:missing", "3", "GLD-P064"),
        ("own_models:number", "3", "GLD-P064"),
        ("no_such_module_here:x", "3", "GLD-P064"),
        ("own_models", "3", "GLD-P064"),
        ("own_models:good", "three", "GLD-P063"),
    ],
)
@pytest.mark.usefixtures("own")
def test_what_is_no_model_or_no_shape_is_told_in_four_lines(
    named: str, shape: str, error_id: str
) -> None:
    said = check(named, "--input", shape)

    assert isinstance(said.exception, Exception)
    assert str(told(said.exception)).startswith(error_id)
    assert told(said.exception).exit_code == 2
