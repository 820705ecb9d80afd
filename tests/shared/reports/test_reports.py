"""A report follows from signed entries alone, and one changed byte is found."""

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from guilder_shared import reports
from guilder_shared.errors import BudgetSpent, IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Plan
from guilder_shared.officer import Officer
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Grant, Ledger
from guilder_shared.reports.build import content, signed_bytes
from guilder_shared.study import Study

KEY = SigningKey.generate()
PLAN = Plan(noise_multiplier=6.0, num_turns=4, sensitivity_slack=1e-3)
STUDY: dict[str, Any] = {
    "schema": 1,
    "study": {
        "name": "risk",
        "recipe": "tabular-classification",
        "purpose": "Find <b>risky</b> loans & explain them",
    },
    "data": {
        "kind": "table",
        "dataset": "loans",
        "target": "default",
        "columns": {"amount": {"kind": "number", "low": 0, "high": 9}},
    },
    "model": {"name": "logistic"},
    "training": {
        "rounds": 3,
        "local_steps": 2,
        "sample_rate": 1,
        "learning_rate": 1.0,
    },
    "privacy": {
        "unit": "record",
        "mechanism": "site-noise",
        "epsilon": 3.0,
        "delta": 1e-6,
        "clip_norm": 1.0,
    },
    "aggregation": {"min_sites": 1, "spare_turns": 1},
    "evaluation": {"on": "none"},
}


def open_ledger(epsilon: float = 5.0, key: SigningKey = KEY) -> Ledger:
    """A ledger in memory with one budget, whose officer permits every study."""
    officer = Officer(SigningKey.generate(), site="bank-a")
    orders = [
        officer.budget("clients", epsilon, 1e-5, ["loans"]),
        officer.rule(
            "any",
            recipes=["tabular-classification"],
            largest_epsilon=100,
            largest_delta=0.5,
            allow_unprotected=True,
        ),
    ]
    named: Any = {"site": "bank-a", "officer": officer.public_hex}
    return Ledger.open(None, key, orders=orders, **named)


def reserve(ledger: Ledger, run_id: str = "run-1", **changes: Any) -> Grant:
    raw = json.loads(json.dumps(STUDY))
    raw["privacy"]["mechanism"] = changes.pop("mechanism", "site-noise")
    study = Study.model_validate(raw)
    plan = PLAN if study.privacy.mechanism != "none" else Plan(None, 4, 1e-3)
    facts = {
        "run_id": run_id,
        "server": "https://server",
        "study_digest": study.digest(),
        "study_name": study.study.name,
        "dataset": study.data.dataset,
        "recipe": study.study.recipe,
        "unit": study.privacy.unit,
        "cohort": study.aggregation.min_sites,
        "study_epsilon": study.privacy.epsilon,
        "study_delta": study.privacy.delta,
        "turn_event": accounting.turn_event(study, plan),
        "num_turns": plan.num_turns,
        "meta": {
            "study": study.canonical().decode(),
            "plan": {
                "noise_multiplier": plan.noise_multiplier,
                "num_turns": plan.num_turns,
                "sensitivity_slack": plan.sensitivity_slack,
            },
            "simulated": changes.pop("simulated", False),
        },
    }
    return ledger.reserve(**{**facts, **changes})


@pytest.fixture
def ledger() -> Ledger:
    """One study with two turns spent, one of them sent, and one refusal."""
    ledger = open_ledger()
    grant = reserve(ledger).grant_id
    for turn_no in (1, 2):
        ledger.spend(grant, turn_no, f"{turn_no}" * 64)
    ledger.seal(grant, 1, "a" * 64)
    ledger.receipt(grant, 1, "a" * 64)
    with pytest.raises(BudgetSpent):
        reserve(ledger, "run-2", turn_event=dict(LOUD), meta={})
    return ledger


LOUD = {"event": "gaussian", "noise_multiplier": 0.3}


def rewrite(path: Path, change: Any, key: SigningKey | None = KEY) -> Path:
    """Change the parsed report; sign it again, as a dishonest site would."""
    report = json.loads(path.read_bytes())
    change(report)
    if key is not None:
        report.pop("signature")
        report["signature"] = key.sign(signed_bytes(report)).hex()
    path.write_bytes(rfc8785.dumps(report) + b"\n")
    return path


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(IntegrityError) as raised:
        reports.verify(path, **options)
    assert raised.value.exit_code == 5
    return raised.value.error_id


def test_a_report_verifies_and_says_what_was_charged(
    ledger: Ledger, tmp_path: Path
) -> None:
    path = reports.write(ledger, tmp_path)

    found = reports.verify(path, public_key=KEY.public_hex)

    (study,) = found.studies
    assert path.name == "bank-a.report.json"
    assert (study.epsilon, study.delta, study.unit) == (3, 1e-6, "record")
    assert (study.num_turns_spent, study.num_turns) == (2, 4)
    assert study.recomputed_epsilon == pytest.approx(
        accounting.epsilon([({**LOUD, "noise_multiplier": 6 / 1.001}, 8)], 1e-6),
        abs=1e-5,
    )
    assert found.to_json()["ok"] is True
    assert "2 of 4 turns spent" in found.to_text()


def test_a_report_names_promise_prefix_budget_releases_and_refusals(
    ledger: Ledger,
) -> None:
    report = reports.build(ledger)

    (study,) = report["studies"]
    assert "add or remove one record" in study["guarantee"]["sentence"]
    assert study["purpose"].startswith("Find")
    assert 0 < study["totals"]["prefix"]["epsilon"] < 3
    assert "no guarantee" in study["totals"]["prefix"]["covers"]
    assert [r["sha256"] for r in study["releases"]] == ["a" * 64, None]
    assert [r["received"] for r in study["releases"]] == [True, False]
    (budget,) = report["budgets"]
    assert budget["epsilon"] == {"limit": 5, "spent": 3, "reserved": 0, "left": 2}
    assert [r["run_id"] for r in report["refusals"]] == ["run-2"]
    assert len(report["not_protected"]) >= 5


def test_the_same_ledger_gives_the_same_bytes_at_any_time(
    ledger: Ledger, tmp_path: Path
) -> None:
    first = reports.write(ledger, tmp_path / "1")
    time.sleep(0.01)
    second = reports.write(ledger, tmp_path / "2")

    for name in ("bank-a.report.json", "bank-a.report.html"):
        assert first.with_name(name).read_bytes() == second.with_name(name).read_bytes()


def test_an_unprotected_study_is_called_so_and_a_simulated_one_is_stamped(
    tmp_path: Path,
) -> None:
    with open_ledger() as ledger:
        reserve(ledger, mechanism="none", simulated=True)
        path = reports.write(ledger, tmp_path)

    (study,) = reports.verify(path).studies
    sentence = json.loads(path.read_bytes())["studies"][0]["guarantee"]["sentence"]
    assert (study.epsilon, study.recomputed_epsilon) == (None, None)
    assert (study.protected, study.simulated) == (False, True)
    assert sentence.startswith("SIMULATED: NO GUARANTEE")
    assert "UNPROTECTED" in sentence
    assert "UNPROTECTED" in path.with_suffix(".html").read_text()


def flipped(raw: bytes, position: int) -> bytes:
    return raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]


def undetected(path: Path, positions: range) -> list[int]:
    raw, missed = path.read_bytes(), []
    for position in positions:
        path.write_bytes(flipped(raw, position))
        try:
            reports.verify(path)
            missed.append(position)
        except IntegrityError:
            pass
    return missed


@pytest.mark.brief
def test_one_changed_byte_is_found(ledger: Ledger, memory: Path) -> None:
    path = reports.write(ledger, memory)
    size = path.stat().st_size

    assert undetected(path, range(0, size, size // 200)) == []


@pytest.mark.slow(minutes=2)
@pytest.mark.timeout(1200)
def test_any_changed_byte_is_found(ledger: Ledger, memory: Path) -> None:
    path = reports.write(ledger, memory)

    assert undetected(path, range(path.stat().st_size)) == []


def test_a_changed_entry_is_named(ledger: Ledger, tmp_path: Path) -> None:
    path = reports.write(ledger, tmp_path)

    def hide_a_turn(report: dict[str, Any]) -> None:
        report["ledger"]["entries"][4]["body"]["turn_no"] = 3

    rewrite(path, hide_a_turn)

    with pytest.raises(IntegrityError, match="entry 5 is not what was written"):
        reports.verify(path)


def test_an_entry_taken_out_is_found(ledger: Ledger, tmp_path: Path) -> None:
    path = reports.write(ledger, tmp_path)

    rewrite(path, lambda report: report["ledger"]["entries"].pop(4))

    assert error_of(path) == "GLD-I001"


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("studies", 0, "totals", "epsilon"), 1),
        (("studies", 0, "totals", "recomputed_epsilon"), 1),
        (("studies", 0, "guarantee", "unit"), "person"),
        (("studies", 0, "events", 0, "event", "of"), {"event": "none-protected"}),
        (("studies", 0, "releases", 0, "sha256"), "b" * 64),
        (("budgets", 0, "epsilon", "left"), 5),
        (("refusals",), []),
        (("ledger", "head", "seq"), 99),
        (("as_of",), "2030-01-01T00:00:00.000Z"),
        (("site", "name"), "bank-b"),
        (("studies",), None),
    ],
)
def test_a_figure_that_does_not_follow_from_the_entries_is_found_though_signed(
    ledger: Ledger, tmp_path: Path, where: tuple[Any, ...], value: Any
) -> None:
    path = reports.write(ledger, tmp_path)

    def change(report: dict[str, Any]) -> None:
        place: Any = report
        for step in where[:-1]:
            place = place[step]
        place[where[-1]] = value

    assert error_of(rewrite(path, change)) == "GLD-I013"


def test_without_the_sites_signature_nothing_verifies(
    ledger: Ledger, tmp_path: Path
) -> None:
    path = reports.write(ledger, tmp_path)

    rewrite(path, lambda report: report.update(signature="00" * 64), key=None)

    assert error_of(path) == "GLD-I012"


def test_a_forged_report_fails_for_a_reader_who_knows_the_sites_key(
    tmp_path: Path,
) -> None:
    forger = SigningKey.generate()
    with open_ledger(key=forger) as forged:
        reserve(forged, mechanism="none")
        path = reports.write(forged, tmp_path)

    assert reports.verify(path).key_confirmed is False
    assert error_of(path, public_key=KEY.public_hex) == "GLD-I072"


def test_events_that_cost_more_than_was_accepted_are_found(tmp_path: Path) -> None:
    with open_ledger() as ledger:
        reserve(ledger, turn_event={**LOUD, "noise_multiplier": 2}, meta={})
        path = reports.write(ledger, tmp_path)

    assert error_of(path) == "GLD-I014"


def test_a_filter_that_was_charged_less_than_the_event_costs_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = accounting.renyi
    ledger = open_ledger(9.0)
    with monkeypatch.context() as patch:
        patch.setattr(accounting, "renyi", lambda *a: [0.9 * r for r in true(*a)])
        reserve(ledger)

    assert error_of(reports.write(ledger, tmp_path)) == "GLD-I013"


@pytest.mark.parametrize(
    "change",
    [
        {"study_epsilon": 4.0},
        {"study_digest": "0" * 64},
        {"turn_event": {"event": "gaussian", "noise_multiplier": 50.0}},
    ],
)
def test_a_grant_that_is_not_of_the_study_it_carries_is_found(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    with open_ledger() as ledger:
        reserve(ledger, **change)
        path = reports.write(ledger, tmp_path)

    assert error_of(path) == "GLD-I013"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}\n",
        b"[1]\n",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema":"guilder-report-1"}\n',
        b'{"a":' + b"9" * 5000 + b"}\n",
        b'{"a":NaN}\n',
    ],
)
def test_what_is_no_report_is_a_clear_error(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "x.report.json"
    path.write_bytes(raw)

    assert error_of(path) == "GLD-I011"


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none.json") == "GLD-I011"


def test_the_page_needs_nothing_else_and_escapes_what_others_wrote(
    ledger: Ledger, tmp_path: Path
) -> None:
    text = reports.write(ledger, tmp_path).with_suffix(".html").read_text()
    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            tags.append(tag)
            assert not {name for name, _ in attrs} & {"src", "href", "onclick"}

    Reader().feed(text)
    assert not set(tags) & {"script", "img", "link", "iframe", "b"}
    assert "Find &lt;b&gt;risky&lt;/b&gt; loans &amp; explain them" in text
    assert not re.search(r"url\(|@import", text)


def test_the_content_needs_the_entries_alone(ledger: Ledger) -> None:
    report = reports.build(ledger)
    report.pop("signature")

    assert content(ledger.entries()) == report
