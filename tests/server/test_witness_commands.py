"""The operator's answer to a site that lost part of its ledger."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guilder.cli import app
from guilder_server import cohort
from guilder_server.heads import FILE, Heads
from guilder_server.init import init_local
from guilder_shared.messages import Head, Verdict
from guilder_simulations.studies import path_of


def test_what_is_lost_is_summed_over_studies_as_the_officer_must_charge_it(
    tmp_path: Path,
) -> None:
    init_local(tmp_path, ["a"], host="127.0.0.1", port=1, control_port=2)
    storage = tmp_path / "server" / "state"
    for run_id in ("r1", "r2"):
        (storage / "runs" / run_id).mkdir(parents=True)
        shutil.copy(path_of("breast-cancer"), storage / "runs" / run_id / "study.toml")
    heads = Heads(storage / FILE)
    heads.remember({"a": Head(1, "c1")}, run_id="r1")
    heads.remember({"a": Head(2, "c2")}, run_id="r2")
    heads.remember({"a": Head(3, "c3")}, run_id="r2")
    server = ["--server", str(tmp_path / "server" / "server.toml")]

    def ask(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["server", "witnessed", *arguments, *server])
        assert result.exit_code == 0, result.output
        return result.stdout

    all_lost = json.loads(ask("a", "--json"))
    assert [each["results"] for each in all_lost["studies"]] == [1, 2]
    one = all_lost["studies"][0]["epsilon"]
    assert all_lost["epsilon"] == 2 * one > 0
    assert all_lost["head"] == "3:c3"
    lines = ask("a", "--after", "1").splitlines()
    assert lines[-1].startswith("guilder privacy acknowledge 3:c3 --budget NAME")
    assert lines[-1].split("--epsilon ")[1].startswith(f"{one:g} --delta")
    assert "nothing after 3" in ask("a", "--after", "3")
    assert "nothing after 0" in ask("b")


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("GLD-I080: older", "guilder server witnessed a`"),
        ("GLD-I081: another", "guilder server witnessed a`"),
        ("GLD-S050: waits", "guilder run resume"),
        ("GLD-S001: no such recipe", "--sites"),
    ],
)
def test_the_operator_is_told_what_to_do_about_a_refusal(reason: str, fix: str) -> None:
    error = cohort.refusal("a", Verdict.REFUSED_BY_POLICY, reason)

    assert error.why == reason
    assert fix in error.fix
