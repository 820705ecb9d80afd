"""Three accountants are asked again, and a figure that flatters is found."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guilder_shared import reports
from guilder_shared.errors import IntegrityError

Files = Any  # of tests/deploy/conftest.py


def test_three_accountants_stand_beside_the_signed_figures(
    made: Files, tmp_path: Path
) -> None:
    path = tmp_path / "x.report.json"
    path.write_bytes(made.report)

    found = reports.verify(path, cross=True)

    assert [each.study for each in found.accountants] == [
        "risk",
        "sampled",
        "default",
        "measured",
    ]
    for each in found.accountants:
        assert each.pld <= each.accepted
        assert each.prv == pytest.approx(each.pld, rel=0.02)
        assert each.rdp > each.pld
    assert "PRV 1.5" in found.to_text()
    assert reports.verify(path).accountants == ()


@pytest.mark.parametrize("name", ["pld", "prv", "rdp"])
def test_answers_that_the_accountants_never_gave_are_found(
    made: Files, tmp_path: Path, name: str
) -> None:
    def flatter(rows: list[Any]) -> None:
        (row, *_) = [r for r in rows if r["kind"] == "reserve"]
        row["body"]["evidence"][name] = 0.9

    path = tmp_path / "x.jsonl"
    path.write_bytes(made.forged(flatter)["raw"])

    reports.verify(path)  # nothing rests on them
    with pytest.raises(IntegrityError) as raised:
        reports.verify(path, cross=True)

    assert raised.value.error_id == "GLD-I095"


def test_the_command_asks_them_without_loading_torch(
    made: Files, tmp_path: Path
) -> None:
    child = """
import sys
from guilder.cli import main
sys.argv = ["guilder", "privacy", "verify", sys.argv[1], "--cross-check", "--json"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("torch" in sys.modules)
"""

    done = subprocess.run(
        [sys.executable, "-c", child, str(made.both)], capture_output=True, text=True
    )
    told, loaded = done.stdout.splitlines()

    assert loaded == "False"
    sites = json.loads(told)["sites"]
    assert [len(site["accountants"]) for site in sites] == [4, 2]
