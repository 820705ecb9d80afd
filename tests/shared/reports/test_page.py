"""Page one answers the officer's questions, in two languages and in any browser."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guilder_shared import reports
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.reports import consortium, consortium_page, words
from guilder_shared.reports.approvals import fingerprint
from guilder_shared.reports.texts import NOT_PROTECTED_ZH, TEXTS
from guilder_shared.study import Study

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
AXE = Path(os.environ.get("GUILDER_AXE", "/nowhere"))  # axe.min.js of axe-core 4
StudyOf = Callable[..., Study]
LedgerOf = Callable[..., Ledger]
NEVER_CLAIMED = re.compile(r"anonym|complian|gdpr|匿名|合规", re.IGNORECASE)


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def pages(ledger: Ledger, folder: Path) -> dict[str, str]:
    return {
        language: reports.write(ledger, folder / language, language)
        .with_suffix(".html")
        .read_text("utf-8")
        for language in ("en", "zh")
    }


def test_page_one_answers_every_question(
    ledger: Ledger, keys: tuple[SigningKey, SigningKey], tmp_path: Path
) -> None:
    sites_key, officers_key = keys
    for html in pages(ledger, tmp_path).values():
        one = text_of(html.partition('<div class="annex">')[0])
        for answer in (
            "bank-a",
            fingerprint(sites_key.public_hex),
            fingerprint(officers_key.public_hex),
            "1.5",  # epsilon of a study
            "3.5",  # of the period
            "0.5",  # left of the period
            "rule of-2026",
            "guilder privacy verify bank-a.report.json",
        ):
            assert answer in one, answer
        assert "UNPROTECTED" in one
        assert re.search(r"1 left of 4 for the whole lifetime|上限 4.*剩余 1", one)
        listed = html.partition('<div class="annex">')[0].count("<li>")
        assert listed == len(words.NOT_PROTECTED)
    for html in pages(ledger, tmp_path).values():
        assert re.search(r"PLD 1\.4\d+, PRV 1\.5\d+, RDP \d", text_of(html))


QUESTIONS = ("who", "hidden", "spent", "approved", "not_protected", "verify")


def test_page_one_asks_the_six_questions_in_order(
    ledger: Ledger, tmp_path: Path
) -> None:
    for place, html in enumerate(pages(ledger, tmp_path).values()):
        one, _, annex = html.partition('<div class="annex">')
        asked = re.findall("<h2>(.*?)</h2>", one)
        assert asked == [TEXTS[name][place] for name in QUESTIONS]
        assert annex  # and the rest begins on another sheet of paper
        assert ".annex { break-before: page; }" in html


def test_it_prints_in_black_and_white(ledger: Ledger, tmp_path: Path) -> None:
    for html in pages(ledger, tmp_path).values():
        colours = re.findall(r"#([0-9a-f]{3,6})\b", html.partition("<body>")[0])
        colours += re.findall(r'(?:fill|stroke)="#(\w+)"', html)
        assert {len(colour) for colour in colours} <= {3, 6}
        for colour in colours:
            wide = len(colour) // 3
            parts = {colour[at : at + wide] for at in range(0, len(colour), wide)}
            assert len(parts) == 1, colour  # red, green and blue alike: a grey
        assert "@media print" in html
        assert "stroke-dasharray" in html  # what is reserved is striped, not tinted


def test_neither_language_has_a_text_that_the_other_lacks(
    ledger: Ledger, tmp_path: Path
) -> None:
    fields = re.compile(r"\{(\w+)\}")
    for name, (english, chinese) in TEXTS.items():
        assert set(fields.findall(english)) == set(fields.findall(chinese)), name
    assert len(NOT_PROTECTED_ZH) == len(words.NOT_PROTECTED)
    found = pages(ledger, tmp_path)
    assert found["en"].count("<table") == found["zh"].count("<table")
    assert (tmp_path / "en" / "bank-a.report.json").read_bytes() == (
        tmp_path / "zh" / "bank-a.report.json"
    ).read_bytes()


def test_nobody_is_called_anonymous_and_no_law_fulfilled(
    ledger: Ledger, tmp_path: Path
) -> None:
    for html in pages(ledger, tmp_path).values():
        assert not NEVER_CLAIMED.search(html)
    told = [text for both in TEXTS.values() for text in both]
    told += [*words.NOT_PROTECTED, *NOT_PROTECTED_ZH, words.CAVEAT, words.WHOLE]
    assert [text for text in told if NEVER_CLAIMED.search(text)] == []


def test_no_text_takes_an_epsilon_without_its_delta() -> None:
    with_delta = re.compile(r"\{delta\}|same delta|δ")
    bare = [
        text
        for both in TEXTS.values()
        for text in both
        if "{epsilon}" in text and not with_delta.search(text)
    ]

    assert bare == []


def test_figures_over_time_stand_beside_the_naive_sum(ledger: Ledger) -> None:
    (budget,) = reports.build(ledger)["budgets"]

    assert [point["sum"] for point in budget["history"]] == [1.5, 3.0]
    first, second = (point["composed"] for point in budget["history"])
    assert first <= 1.5
    assert second is None  # a record's and a person's figures do not add up


def test_equal_studies_compose_to_less_than_their_sum(
    study: StudyOf, ledger_of: LedgerOf
) -> None:
    with ledger_of(study("one"), study("two", clip_norm=2.0)) as ledger:
        (budget,) = reports.build(ledger)["budgets"]

    last = budget["history"][-1]
    assert last["sum"] == 3
    assert 1.5 < last["composed"] < 2.6


def test_a_report_that_lies_about_who_approved_is_found(
    ledger: Ledger, keys: tuple[SigningKey, SigningKey], tmp_path: Path
) -> None:
    import rfc8785

    from guilder_shared.reports.build import signed_bytes

    path = reports.write(ledger, tmp_path)
    report = json.loads(path.read_bytes())
    report["studies"][0]["approval"]["name"] = "the-board"
    report.pop("signature")
    report["signature"] = keys[0].sign(signed_bytes(report)).hex()
    path.write_bytes(rfc8785.dumps(report) + b"\n")

    with pytest.raises(IntegrityError, match="approval"):
        reports.verify(path)


def test_a_consortium_is_one_page_of_verified_reports(
    study: StudyOf, ledger_of: LedgerOf, tmp_path: Path
) -> None:
    shared = study("default", "person")
    paths = []
    for site in ("bank-a", "bank-b"):
        with ledger_of(shared, site=site, key=SigningKey.generate()) as ledger:
            paths.append(reports.write(ledger, tmp_path))

    found = consortium.combine(paths)

    (line,) = found["studies"]
    assert [each["site"] for each in line["sites"]] == ["bank-a", "bank-b"]
    assert line["across_sites"]["epsilon"] == 3
    for language in ("en", "zh"):
        page = consortium_page.page(found, language, file="all.json")
        place = ["en", "zh"].index(language)
        asked = re.findall("<h2>(.*?)</h2>", page)
        assert asked == [TEXTS[name][place] for name in QUESTIONS]
        html = text_of(page)
        assert html.count("bank-b") >= 5  # whose key, promise, budget, order, servers
        assert re.search("2.5 left of 4 for the whole lifetime|剩余 2.5", html)
        assert "guilder privacy verify all.json" in html
        assert not NEVER_CLAIMED.search(html)
    paths[1].write_bytes(paths[1].read_bytes().replace(b"bank-b", b"bank-c", 1))
    with pytest.raises(IntegrityError):
        consortium.combine(paths)


def in_a_browser(html: str, folder: Path, script: str) -> Any:
    """What `script` leaves in the page's title, in a browser without a network."""
    assert BROWSER is not None
    path = folder / "page.html"
    path.write_text(html.replace("</body>", f"<script>{script}</script></body>"))
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=20000",
            "--window-size=1000,1400",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-500:]
    return json.loads(found[1].replace("&quot;", '"').replace("&amp;", "&"))


TELL = """
function tell(value) {
  const pre = document.createElement('pre');
  pre.id = 'told'; pre.textContent = JSON.stringify(value);
  document.body.append(pre);
}
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("language", ["en", "zh"])
def test_everything_renders_and_nothing_runs_over(
    ledger: Ledger, tmp_path: Path, language: str
) -> None:
    script = (
        TELL
        + """
    tell({wide: document.documentElement.scrollWidth > window.innerWidth,
          pictures: [...document.querySelectorAll('svg')].map(
            s => s.getBoundingClientRect().height > 10 && s.getBBox().width > 100),
          loaded: performance.getEntriesByType('resource').length});
    """
    )

    found = in_a_browser(pages(ledger, tmp_path)[language], tmp_path, script)

    assert found == {"wide": False, "pictures": [True, True], "loaded": 0}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.skipif(not AXE.is_file(), reason="GUILDER_AXE names no axe.min.js")
@pytest.mark.parametrize("language", ["en", "zh"])
def test_axe_finds_nothing(ledger: Ledger, tmp_path: Path, language: str) -> None:
    paths = [reports.write(ledger, tmp_path)]
    together = consortium_page.page(consortium.combine(paths), language)
    script = AXE.read_text("utf-8").replace("</script", "<\\/script") + TELL
    script += "axe.run().then(r => tell(r.violations.map(v => v.id)));"

    for html in (pages(ledger, tmp_path)[language], together):
        assert in_a_browser(html, tmp_path, script) == []


def epsilons(value: Any, above: tuple[dict[str, Any], ...] = ()) -> Iterator[Any]:
    """Every number called an epsilon, with the objects that it stands in."""
    if isinstance(value, dict):
        for name, member in value.items():
            if "epsilon" in name and isinstance(member, int | float):
                yield name, (*above, value)
            yield from epsilons(member, (*above, value))
    elif isinstance(value, list):
        for member in value:
            yield from epsilons(member, above)


def test_no_epsilon_stands_alone_in_the_file(ledger: Ledger) -> None:
    content = reports.build(ledger)
    of_parts = {part: content[part] for part in ("budgets", "studies", "refusals")}
    found = list(epsilons(of_parts))

    assert len(found) > 12
    for name, objects in found:
        limits = [each["limit"] for each in objects if "limit" in each]
        beside = [*objects[1:], *(each for each in limits if isinstance(each, dict))]
        assert any("delta" in each for each in beside), name
        assert any({"unit", "guarantee", "by_unit"} & each.keys() for each in beside)


def test_no_epsilon_stands_alone_on_page_one(ledger: Ledger, tmp_path: Path) -> None:
    for html in pages(ledger, tmp_path).values():
        one = html.partition('<div class="annex">')[0]
        told = re.findall(
            r"<(?:p|div|blockquote)[^>]*>(.*?)</(?:p|div|blockquote)>", one, re.S
        )
        sentences = [
            text_of(each) for each in told if re.search(r"(epsilon|ε) ?\d", each)
        ]

        assert len(sentences) >= 3
        bare = [s for s in sentences if not re.search(r"delta|δ", s)]
        # The period's figures follow the sentence on the budget that they are part of.
        assert all("3.5" in sentence for sentence in bare), bare
