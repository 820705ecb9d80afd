"""The second verifier, which shares no line with Guilder, agrees with the first."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guilder.privacy_commands import app
from guilder_shared import reports
from guilder_shared.identity import SigningKey
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.reports.export import export
from guilder_verifier.check import check
from guilder_verifier.finding import Finding

PACK = Path(__file__).parents[3] / "deploy" / "pack_verifier.py"


def test_both_verifiers_say_the_same_of_a_sound_report(written: Any) -> None:
    key = written.key.public_hex
    theirs = reports.verify(written.report, public_key=key)

    ours = check(written.report.read_bytes(), [key])

    assert ours["site"] == theirs.site
    assert ours["num_entries"] == theirs.num_entries
    claimed = json.loads(written.report.read_bytes())["budgets"]
    for mine, told in zip(ours["budgets"], claimed, strict=True):
        assert mine["epsilon"] == told["epsilon"]
        assert mine["renyi_used"] == pytest.approx(told["renyi_used"])
    assert [study["name"] for study in ours["studies"]] == ["study-0", "study-1"]


def test_a_report_may_come_through_a_pipe(written: Any) -> None:
    for module in ("guilder", "guilder_verifier"):
        words = ["privacy", "verify"] if module == "guilder" else []
        command = [sys.executable, "-m", module, *words, "/dev/stdin"]
        raw = written.report.read_bytes()
        assert subprocess.run(command, input=raw, capture_output=True).returncode == 0


def test_a_report_is_compared_with_the_ledger_it_came_from(
    written: Any, verdicts: Callable[..., set[str]]
) -> None:
    raw, ledger = written.report.read_bytes(), written.ledger.read_bytes()
    named: Any = {"site": "bank-a", "officer": "a" * 64}
    with Ledger.open(None, written.key, **named) as other:
        others = export(other)
    with Ledger.open(None, SigningKey.generate(), **named) as other:
        strangers = export(other)
    lines = ledger.splitlines(keepends=True)

    older = written.older.read_bytes()

    assert verdicts(raw, ledger=ledger) == {""}
    assert verdicts(ledger, keys=(written.key.public_hex,), ledger=ledger) == {""}
    assert verdicts(raw, ledger=older) == {"GLD-I074"}
    assert verdicts(ledger, ledger=older) == {"GLD-I074"}
    assert verdicts(older, ledger=ledger) == {""}
    assert verdicts(raw, ledger=others) == {"GLD-I073"}
    assert verdicts(raw, ledger=strangers) == {"GLD-I073"}
    assert verdicts(raw, ledger=b"".join(lines[:-1])) == {"GLD-I071"}
    assert verdicts(raw, ledger=b"".join(lines[:50] + lines[51:])) == {"GLD-I001"}
    assert verdicts(raw, ledger=b"") == {"GLD-I011"}


def test_a_figure_that_does_not_follow_is_found_though_it_is_signed(
    written: Any, forge: Any
) -> None:
    forged = json.loads(written.report.read_bytes())
    forged["budgets"][0]["epsilon"]["left"] = 8.0

    with pytest.raises(Finding, match="left"):
        check(forge.sign(forged, written.key))


def test_the_packed_file_runs_alone_and_is_the_same_each_time(
    written: Any, tmp_path: Path
) -> None:
    packed = [tmp_path / name for name in ("1.pyz", "2.pyz")]
    for path in packed:
        subprocess.run([sys.executable, str(PACK), str(path)], check=True)
    changed = tmp_path / "changed.json"
    changed.write_bytes(written.report.read_bytes().replace(b"bank-a", b"bank-b", 1))
    command = [sys.executable, "-I", "-S", str(packed[0])]

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, text=True
        )

    sound = run(written.report, "--json")
    found, other = run(changed), run(written.report, "--key", "0" * 64)

    assert packed[0].read_bytes() == packed[1].read_bytes()
    assert sound.returncode == 0, sound.stderr
    assert json.loads(sound.stdout)["ok"] is True
    assert (found.returncode, other.returncode) == (5, 5)
    assert found.stderr.startswith("GLD-I0")
    assert "GLD-I072" in other.stderr


def test_an_installed_guilder_hands_out_the_same_two_files(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["verifier", "--out", str(tmp_path / "given")])
    for name in ("guilder-verify.pyz", "verify.html"):
        command = [sys.executable, str(PACK), str(tmp_path / name)]
        subprocess.run(command, check=True)

        given = (tmp_path / "given" / name).read_bytes()

        assert given == (tmp_path / name).read_bytes()
        assert str(tmp_path / "given" / name) in done.stdout


def test_a_consortiums_command_writes_what_the_verifiers_take(
    made: Any, verdicts: Callable[..., set[str]], tmp_path: Path
) -> None:
    paths = [str(path) for path in sorted(made.folder.glob("bank-[ab].report.json"))]
    page = tmp_path / "page.html"

    done = CliRunner().invoke(app, ["consortium", *paths, "--out", str(page), "--json"])

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout).keys() == {"schema", "sites", "studies"}
    assert verdicts(page.with_suffix(".json").read_bytes()) == {""}


def test_the_second_verifier_imports_nothing_of_the_first() -> None:
    folder = PACK.parent / "guilder_verifier"
    for path in folder.glob("*.py"):
        text = path.read_text("utf-8")
        for word in ("guilder_shared", "guilder_client", "cryptography", "rfc8785"):
            assert f"import {word}" not in text
            assert f"from {word}" not in text
