"""The second verifier, which shares no line with Guilder, agrees with the first."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guilder_shared import reports
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.reports.export import export
from guilder_verifier.check import check
from guilder_verifier.finding import Finding

PACK = Path(__file__).parents[2] / "deploy" / "pack_verifier.py"
KEY = SigningKey.generate()
SAMPLED = {
    "event": "self-composed",
    "count": 5,
    "of": {
        "event": "poisson-sampled",
        "sampling_probability": 0.02,
        "of": {"event": "gaussian", "noise_multiplier": 1.1},
    },
}
EVENTS = [SAMPLED, {"event": "gaussian", "noise_multiplier": 60.0}]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a ledger of 200 entries with every kind of entry and order in it."""
    officer = Officer(SigningKey.generate(), site="bank-a")
    named: Any = {"site": "bank-a", "officer": officer.public_hex}
    with Ledger.open(None, KEY, **named) as ledger:
        rule = officer.rule("r", recipes=["r"], largest_epsilon=2, largest_delta=1e-5)
        for order in (
            officer.budget("people", 9.0, 1e-4, ["d"], None, (30, 8.0)),
            officer.budget("old", 1.0, 1e-4, ["e"]),
            officer.public_size("d", 100, 90),
            rule,
            officer.withdraw("old"),
            officer.acknowledge(
                "https://s", 3, "c" * 64, budget="people", epsilon=0.5, delta=1e-6
            ),
        ):
            ledger.admit(order)
        for number, event in enumerate(EVENTS):
            fill(ledger, number, event)
        ledger.exclude("d", "e" * 64, in_force=True)
        folder = tmp_path_factory.mktemp("report")
        (folder / "older.jsonl").write_bytes(export(ledger))
        ledger.admit(officer.revoke(rule.order_id))
        (folder / "ledger.jsonl").write_bytes(export(ledger))
        assert len(ledger.entries()) >= 200
        return reports.write(ledger, folder)


def fill(ledger: Ledger, number: int, event: dict[str, Any]) -> None:
    grant = ledger.reserve(
        run_id=f"run-{number}",
        server="https://s",
        study_digest="d" * 64,
        study_name=f"study-{number}",
        dataset="d",
        recipe="r",
        unit="record",
        cohort=2,
        study_epsilon=1.9,
        study_delta=1e-6,
        turn_event=event,
        num_turns=40,
        meta={},
    ).grant_id
    for turn_no in range(1, 34):
        ledger.spend(grant, turn_no, f"{turn_no:064x}")
        if turn_no == 1:
            ledger.cohort(grant, "b" * 64)
        ledger.seal(grant, turn_no, f"{turn_no + 99:064x}")
        ledger.receipt(grant, turn_no, f"{turn_no + 99:064x}")
    if number:
        ledger.close(grant)


def test_both_verifiers_say_the_same_of_a_sound_report(report: Path) -> None:
    theirs = reports.verify(report, public_key=KEY.public_hex)

    ours = check(report.read_bytes(), KEY.public_hex)

    assert ours["site"] == theirs.site
    assert ours["num_entries"] == theirs.num_entries
    claimed = json.loads(report.read_bytes())["budgets"]
    for mine, told in zip(ours["budgets"], claimed, strict=True):
        assert mine["epsilon"] == told["epsilon"]
        assert mine["renyi_used"] == pytest.approx(told["renyi_used"])
    assert [study["renyi_recomputed"] for study in ours["studies"]] == [True, True]


def test_each_verifier_finds_any_changed_byte(report: Path, tmp_path: Path) -> None:
    raw, path = report.read_bytes(), tmp_path / "x.report.json"
    chance = random.Random(7)

    for position in chance.sample(range(len(raw)), 150):
        changed = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        with pytest.raises(Finding):
            check(changed)
        path.write_bytes(changed)
        with pytest.raises(IntegrityError):
            reports.verify(path)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_second_verifier_finds_every_changed_byte(report: Path) -> None:
    raw = report.read_bytes()

    for position in range(len(raw)):
        changed = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        with pytest.raises(Finding):
            check(changed)


def refused(report: Path, ledger: Path) -> set[str]:
    """The ids by which both verifiers refuse a report beside a ledger."""
    with pytest.raises(IntegrityError) as first:
        reports.verify(report, ledger=ledger)
    with pytest.raises(Finding) as second:
        check(report.read_bytes(), None, ledger.read_bytes())
    return {first.value.error_id, second.value.error_id}


def test_a_report_is_compared_with_the_ledger_it_came_from(
    report: Path, tmp_path: Path
) -> None:
    ledger = report.with_name("ledger.jsonl")
    with Ledger.open(None, KEY, site="bank-a", officer="a" * 64) as other:
        (tmp_path / "other.jsonl").write_bytes(export(other))
    lines = ledger.read_bytes().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[:-1]))
    (tmp_path / "gap.jsonl").write_bytes(b"".join(lines[:50] + lines[51:]))

    reports.verify(report, ledger=ledger)
    assert check(report.read_bytes(), None, ledger.read_bytes())["ledger_compared"]
    assert check(ledger.read_bytes())["num_entries"] == len(lines) - 1
    assert refused(report, report.with_name("older.jsonl")) == {"GLD-I074"}
    assert refused(report, tmp_path / "other.jsonl") == {"GLD-I073"}
    assert refused(report, tmp_path / "cut.jsonl")
    assert refused(report, tmp_path / "gap.jsonl")


def test_a_figure_that_does_not_follow_is_found_though_it_is_signed(
    report: Path,
) -> None:
    import rfc8785

    from guilder_shared.reports.build import signed_bytes

    forged = json.loads(report.read_bytes())
    forged.pop("signature")
    forged["budgets"][0]["epsilon"]["left"] = 8.0
    forged["signature"] = KEY.sign(signed_bytes(forged)).hex()

    with pytest.raises(Finding, match="left"):
        check(rfc8785.dumps(forged) + b"\n")


def test_the_packed_file_runs_alone_and_is_the_same_each_time(
    report: Path, tmp_path: Path
) -> None:
    packed = [tmp_path / name for name in ("1.pyz", "2.pyz")]
    for path in packed:
        subprocess.run([sys.executable, str(PACK), str(path)], check=True)
    changed = tmp_path / "changed.json"
    changed.write_bytes(report.read_bytes().replace(b"bank-a", b"bank-b", 1))
    command = [sys.executable, "-I", "-S", str(packed[0])]

    sound = subprocess.run([*command, str(report), "--json"], capture_output=True)
    found = subprocess.run([*command, str(changed)], capture_output=True, text=True)
    other = subprocess.run(
        [*command, str(report), "--key", "0" * 64], capture_output=True, text=True
    )

    assert packed[0].read_bytes() == packed[1].read_bytes()
    assert sound.returncode == 0, sound.stderr
    assert json.loads(sound.stdout)["ok"] is True
    assert (found.returncode, other.returncode) == (5, 5)
    assert found.stderr.startswith("GLD-I0")
    assert "GLD-I072" in other.stderr


def test_the_second_verifier_imports_nothing_of_the_first() -> None:
    folder = PACK.parent / "guilder_verifier"
    for path in folder.glob("*.py"):
        text = path.read_text("utf-8")
        for word in ("guilder_shared", "guilder_client", "cryptography", "rfc8785"):
            assert f"import {word}" not in text
            assert f"from {word}" not in text
