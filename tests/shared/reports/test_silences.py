"""Page one names who would not have noticed an old ledger: excused or forgetful."""

from pathlib import Path
from typing import Any

import pytest

from guilder_shared import reports, witnessing
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Head
from guilder_shared.officer import Officer
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.reports import consortium, consortium_page

KEY, OFFICERS_KEY, SERVERS_KEY = (SigningKey.generate() for _ in range(3))
SERVER, NOON = "https://s", 1_800_000_000.0  # 2027-01-15T08:00:00Z


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def officer(clock: Clock) -> Officer:
    return Officer(OFFICERS_KEY, site="bank-a", clock=clock)


@pytest.fixture
def ledger(clock: Clock, officer: Officer) -> Ledger:
    """Of two turns, the first of which its server received and signed for."""
    named: Any = {"site": "bank-a", "officer": officer.public_hex}
    orders = [
        officer.budget("people", 9.0, 1e-4, ["d"]),
        officer.approve("d" * 64, "t", epsilon=1.0, delta=1e-6),
    ]
    made = Ledger.open(None, KEY, orders=orders, clock=clock, **named)
    grant = made.reserve(
        run_id="r",
        server=SERVER,
        study_digest="d" * 64,
        study_name="t",
        dataset="d",
        recipe="r",
        unit="record",
        cohort=1,
        study_epsilon=1.0,
        study_delta=1e-6,
        turn_event={"event": "gaussian", "noise_multiplier": 60.0},
        num_turns=4,
        meta={},
    ).grant_id
    for turn_no in (1, 2):
        made.spend(grant, turn_no, f"{turn_no:064x}")
        made.seal(grant, turn_no, f"{turn_no + 99:064x}")
    head = made.heads(SERVER)[0]
    told = Head(head.head_no, head.commitment)
    word = witnessing.as_body(witnessing.signed(told, "bank-a", SERVERS_KEY))
    made.receipt(grant, 1, f"{100:064x}", word)
    return made


def page_one(ledger: Ledger, folder: Path, language: str) -> str:
    html = reports.write(ledger, folder, language).with_suffix(".html")
    return html.read_text("utf-8").partition('<div class="annex">')[0]


def test_where_every_server_remembers_the_page_says_so_and_the_file_nothing(
    ledger: Ledger, tmp_path: Path
) -> None:
    assert "silences" not in reports.build(ledger)
    assert "none was found to have forgotten" in page_one(ledger, tmp_path, "en")
    assert "未发现任何服务器忘记" in page_one(ledger, tmp_path, "zh")


def test_a_server_that_forgot_is_named_once_for_what_it_signed(
    ledger: Ledger, clock: Clock, tmp_path: Path
) -> None:
    clock.now += 60

    assert ledger.forgot(SERVER, 0)
    assert not ledger.forgot(SERVER, 0)  # in every later message
    assert not ledger.forgot(SERVER, 1)  # it has caught up
    assert not ledger.forgot("https://other", 0)  # it never signed anything

    (told,) = reports.build(ledger)["silences"]
    lost = {"at": "2027-01-15T08:01:00Z", "signed": 1, "remembered": 0}
    assert told == {"server": SERVER, "excused": [], "forgot": [lost]}
    for language, words in (("en", "remembered nothing"), ("zh", "只记得 无")):
        one = page_one(ledger, tmp_path, language)
        assert SERVER in one
        assert "2027-01-15T08:01:00Z" in one
        assert words in one
    assert reports.verify(tmp_path / "bank-a.report.json").site == "bank-a"


def test_an_excused_server_is_named_with_its_times_also_later(
    ledger: Ledger, officer: Officer, clock: Clock, tmp_path: Path
) -> None:
    first = officer.excuse("https://gone", days=2)
    ledger.admit(first)
    clock.now += 60
    ledger.admit(officer.revoke(first.order_id))
    ledger.admit(officer.excuse("https://lost"))

    gone, lost = reports.build(ledger)["silences"]
    (told,) = gone["excused"]
    assert told == {
        "order_id": first.order_id,
        "since": "2027-01-15T08:00:00Z",
        "expires": "2027-01-17T08:00:00Z",
        "revoked_at": "2027-01-15T08:01:00Z",
    }
    assert lost["excused"][0]["expires"] is None
    for language, end in (("en", "until it is revoked"), ("zh", "至 被撤销 被免除")):
        one = page_one(ledger, tmp_path, language)
        assert "https://gone" in one
        assert "2027-01-15T08:01:00Z" in one  # revoked before it expired
        assert "2027-01-17T08:00:00Z" not in one
        assert end in one


def test_a_consortiums_page_names_them_by_site(ledger: Ledger, tmp_path: Path) -> None:
    ledger.forgot(SERVER, 0)

    found = consortium.combine([reports.write(ledger, tmp_path)])

    assert "remembered nothing" in consortium_page.page(found)
