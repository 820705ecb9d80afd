"""The annex answers every question of its blocks, in both languages, or says why not.

The questions are those of a registry of deployments and of NIST SP 800-226, block by
block; G is the controller's to write.
"""

import math
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest

from guilder_shared import reports
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.reports.build import Report
from guilder_shared.reports.facts import mu
from guilder_shared.reports.page import page
from guilder_shared.reports.texts import TEXTS
from guilder_shared.study import Study

# What each block has to answer, by the name of the text that asks it in the page.
BLOCKS: dict[str, dict[str, str]] = {
    "a": {
        "report id and schema": "report_id",
        "issue time and period": "covers",
        "site": "site_id",
        "consortium, controllers, recipients": "parties",
        "contact of the officer": "contact",
        "legal basis, special categories, retention": "legal",
        "purpose": "purpose",
        "recipe": "recipe",
        "code and lock-file hash": "installed",
        "model": "model",
        "study": "digest",
        "run": "run",
        "data categories": "categories",
        "number of data subjects": "subjects",
        "approved when, by whom, by which order": "granted",
    },
    "b": {
        "flavour": "flavour",
        "unit and neighbouring relation": "unit",
        "unit key": "unit_key",
        "cap per unit and what is above": "cap",
        "delta against 1 / n": "size",
        "mechanism and sampling": "mechanism",
        "noise": "noise",
        "clip norm": "clip_norm",
        "epsilon": "recomputed",
        "mu": "gdp",
        "curve": "curve",
        "conversion": "conversion",
        "deployment model, trust, collusion": "deployment",
        "protected against whom": "against",
        "release type": "release",
    },
    "c": {
        "mechanism of a charge": "event",
        "turns declared and spent": "turns",
        "accountant and version": "accountant",
        "bounds of the accountant": "bounds",
        "failed and aborted rounds": "failed",
        "evaluation metrics, early stopping": "measured",
        "hyper-parameter tuning": "tuned",
        "federated statistics": "statistics",
        "pre-training data": "pretrained",
    },
    "d": {
        "data-dependent preprocessing": "preparing",
        "overlap of persons between sites": "overlap",
        "public data": "public",
    },
    "e": {
        "noise generator": "generator",
        "floating-point protection": "floats",
        "seed handling": "seeds",
        "secure aggregation, threshold, dropouts": "secure_sum",
        "TLS identities": "links",
        "access control": "access",
        "side channels": "channels",
        "key and ledger storage": "storage",
        "test evidence": "evidence",
    },
    "f": {
        "metric with and without privacy": "metric",
        "confidence interval, groups": "groups",
        "trade-off and who chose it": "choice",
    },
    "h": {
        "ledger head and range": "chain",
        "signature and certificate": "signed",
        "previous report": "previous",
        "signature time": "signed_at",
        "verifier's command": "command",
        "machine and human form": "forms",
        "registry's tiers": "tiers",
        "private annex or shareable": "shared",
    },
}
HEADS = {  # of block C's tables
    "when each turn was charged": "charged_at",
    "its result": "sha256",
    "budget cap": "most",
    "spent": "taken",
    "reserved": "set_aside",
    "remaining": "left",
    "per cent": "percent",
    "refused requests": "needed",
    "sum over all runs": "sum",
    "composition": "composed",
    "orders": "admitted_at",
}


def blocks(report: Report, language: str) -> dict[str, str]:
    """The annex's blocks, as HTML by their letters."""
    annex = page(report, language).partition('<div class="annex">')[2]
    found = re.findall(r'<section id="block-(.)">(.*?)</section>', annex, re.S)
    return dict(found)


def answers(block: str) -> dict[str, list[str]]:
    """What stands beside each question of a block, once for each study."""
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', block, re.S)
    told: dict[str, list[str]] = {}
    for question, answer in rows:
        told.setdefault(unescape(question), []).append(unescape(answer))
    return told


@pytest.fixture(scope="module")
def report(ledger: Ledger) -> Report:
    return reports.build(ledger)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("letter", list(BLOCKS))
def test_a_block_answers_each_of_its_questions(
    report: Report, letter: str, language: str
) -> None:
    told = answers(blocks(report, language)[letter])

    place = ["en", "zh"].index(language)
    for asked, name in BLOCKS[letter].items():
        found = told.get(TEXTS[name][place], [])
        assert found, f"nothing on {asked}"
        assert all(answer.strip() for answer in found), asked


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_accounting_shows_every_charge_budget_refusal_and_order(
    report: Report, language: str
) -> None:
    block = blocks(report, language)["c"]

    place = ["en", "zh"].index(language)
    for asked, name in HEADS.items():
        assert f'<th scope="col">{TEXTS[name][place]}</th>' in block, asked
    assert "too-much" in block
    assert "75.0%" in block  # 3 of 4, spent and reserved


def test_what_a_block_is_asked_is_answered_with_this_sites_facts(
    report: Report,
) -> None:
    found = {letter: answers(block) for letter, block in blocks(report, "en").items()}

    def told(letter: str, name: str) -> list[str]:
        return found[letter][TEXTS[name][0]]

    assert told("a", "categories")[0] == "amount, default, customer"
    assert "2000 rows and 1500 persons" in told("a", "subjects")[0]
    assert report["ledger"]["head"]["hash"] in told("a", "report_id")[0]
    assert "rule of-2026" in told("a", "granted")[0]
    by_record, by_person, _ = told("b", "cap")
    assert "does not apply" in by_record
    assert by_person.startswith("5 rows, chosen anew")
    assert told("b", "size")[:2] == [
        "delta times the public size 2000 is 0.002",
        "delta times the public size 1500 is 0.0015",
    ]
    assert told("b", "flavour")[2] == told("b", "size")[2] == "none: unprotected"
    assert "must be trusted" in told("b", "deployment")[2]
    assert "dp-accounting" in told("c", "accountant")[0]
    assert "does not apply" in found["e"][TEXTS["secure_sum"][0]][0]
    assert "guilder privacy verify bank-a.report.json" in told("h", "command")[0]


def test_mu_is_that_of_plain_gaussian_steps(report: Report) -> None:
    told = answers(blocks(report, "en")["b"])[TEXTS["gdp"][0]]
    noise = report["studies"][0]["events"][0]["event"]["of"]["noise_multiplier"]
    true = math.sqrt(4) / noise  # four turns of one step

    shown = float(told[0].split()[0])

    assert true <= shown < true + 2e-3
    assert told[2] == "none: unprotected"


def test_statistics_train_no_model(
    study: Callable[..., Study], ledger_of: Callable[..., Ledger]
) -> None:
    whole = study("figures").model_dump(mode="json", by_alias=True, exclude_none=True)
    for unused in ("model", "training", "evaluation"):
        del whole[unused]
    whole["study"]["recipe"] = "statistics"
    whole["data"] |= {"kind": "columns"}
    del whole["data"]["target"]
    whole["statistics"] = {"noise": "gaussian", "ask": {"rows": {"ask": "count"}}}
    asked = Study.model_validate(whole)
    with ledger_of(asked) as ledger:
        found = blocks(reports.build(ledger), "en")

    assert "does not apply: nothing is trained" in found["a"]
    assert answers(found["b"])[TEXTS["release"][0]][0].startswith("all answers at once")
    assert answers(found["c"])[TEXTS["statistics"][0]][0].startswith("this study: rows")


def test_sampled_steps_have_no_mu() -> None:
    step = {"event": "gaussian", "noise_multiplier": 2.0}
    sampled = {"event": "poisson-sampled", "sampling_probability": 0.1, "of": step}

    def told(event: dict[str, Any]) -> float | None:
        return mu({"events": [{"event": event, "num_turns": 4}]})

    assert told({"event": "self-composed", "count": 4, "of": step}) == 2.0
    assert told({"event": "self-composed", "count": 4, "of": sampled}) is None
    assert told({"event": "parallel", "of": [step, step]}) is None


def test_a_site_without_studies_still_answers(
    ledger_of: Callable[..., Ledger],
) -> None:
    with ledger_of() as ledger:
        report = reports.build(ledger)

    for language in ("en", "zh"):
        assert set(blocks(report, language)) == set(BLOCKS)
