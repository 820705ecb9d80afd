"""The rows a study began with: remembered here alone, compared, never told."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from guilder_client import policy, turn
from guilder_client.cohorts import Cohorts, commitment, fingerprint
from guilder_client.commands import app
from guilder_client.site import Site
from guilder_shared import reports, wire
from guilder_shared.messages import Offer, TurnReply, TurnRequest, Verdict, pack
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.study import Study
from guilder_shared.tasks import Examples

SiteAt = Callable[..., Site]
STUDY = Study.load(
    Path(__file__).parents[1] / "small.toml",
    (
        "aggregation.spare_turns=2",
        "training.rounds=8",
    ),
)
PLAN = accounting.solve(STUDY)
MODEL = pack(registry.initial(STUDY))
KEY = bytes(range(32))
ROWS = "x,y\n" + "0.2,0\n0.9,1\n" * 37


def ask(site: Site, number: int = 1) -> TurnRequest:
    answer = policy.consider(site, Offer("run", STUDY.canonical(), PLAN))
    assert answer.verdict == Verdict.ACCEPTED, answer
    return TurnRequest("run", answer.grant_id, number, number, STUDY.digest(), MODEL)


def under(choice: str) -> Callable[[str], str]:
    return lambda text: text.replace("[policy]", f'[policy]\non_change = "{choice}"')


def record_of(site: Site, grant_id: str) -> Any:
    path = site.settings.site.state_dir / "cohorts" / f"{grant_id}.json"
    return json.loads(path.read_bytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_text(ROWS)
    return tmp_path


# -- the fingerprint

small = st.integers(-3, 3)
tables = st.lists(st.tuples(small, small, small), min_size=1, max_size=12)


def rows_of(cells: list[tuple[int, int, int]]) -> Examples:
    whole = np.array(cells, dtype=np.int64)
    return Examples(
        whole[:, :1].astype(np.float32), whole[:, 1].astype(np.float32), whole[:, 2]
    )


@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(cells: Any, random: Any) -> None:
    shuffled = random.sample(cells, len(cells))

    assert fingerprint(KEY, rows_of(cells)) == fingerprint(KEY, rows_of(shuffled))


@given(tables, st.data())
def test_any_changed_cell_is_found(cells: Any, data: Any) -> None:
    row = data.draw(st.integers(0, len(cells) - 1))
    column = data.draw(st.integers(0, 2))
    changed = [list(each) for each in cells]
    changed[row][column] += data.draw(st.sampled_from([-1, 1, 100]))

    before = fingerprint(KEY, rows_of(cells))
    after = fingerprint(KEY, rows_of([tuple(each) for each in changed]))
    assert before != after


@given(tables, st.integers(0, 11))
def test_a_row_more_or_twice_is_found(cells: Any, place: int) -> None:
    twice = [*cells, cells[place % len(cells)]]

    assert fingerprint(KEY, rows_of(cells)) != fingerprint(KEY, rows_of(twice))


def test_without_the_key_nobody_knows_the_fingerprint_of_known_rows() -> None:
    rows = rows_of([(1, 0, 1)])

    assert fingerprint(KEY, rows) != fingerprint(bytes(32), rows)


# -- the record


def test_the_first_turn_remembers_the_rows_for_its_owner_alone(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder)
    asked = ask(site)
    assert not (folder / "state" / "cohorts").exists()

    turn.take(site, asked)

    record, kept = record_of(site, asked.grant_id), folder / "state" / "cohorts"
    assert (record["began"]["rows"], record["began"]["persons"]) == (74, None)
    assert record["began"]["source"] == str(folder / "data.csv")
    assert record["began"]["query"]["columns"] == {"x": "x", "y": "y"}
    assert site.ledger.cohort_of(asked.grant_id) == commitment(record)
    assert kept.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in kept.iterdir()} == {0o600}


def test_the_rows_are_remembered_after_the_charge_and_before_the_result(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder)

    turn.take(site, ask(site))

    assert [e.kind for e in site.ledger.entries()][-3:] == ["spend", "cohort", "seal"]


@pytest.mark.parametrize("choice", ["continue", "ask", "stop"])
def test_neither_counts_nor_fingerprint_travel_or_are_reported(
    site_at: SiteAt, folder: Path, choice: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        site = site_at(folder, under(choice))
        first = ask(site)
        replies = [turn.take(site, first)]
        (folder / "data.csv").write_text(ROWS + "0.3,1\n" * 17)
        replies.append(turn.take(site, ask(site, 2)))
        report = reports.build(site.ledger)

    record = record_of(site, first.grant_id)
    known = [record["began"], *record["seen"], record.get("waits", record["began"])]
    secrets = {each["fingerprint"] for each in known} | {record["salt"]}
    key = (folder / "state" / "cohorts" / "fingerprint.key").read_bytes()
    left = [str(wire.encode_reply(each)) for each in replies]
    left += [json.dumps(report, default=str), caplog.text]
    left += [bytes(each.update).decode("latin-1") for each in replies]
    for secret in (*secrets, key.hex(), key.decode("latin-1")):
        assert not any(secret in text for text in left)
    bodies = [e.content() for e in site.ledger.entries() if e.kind == "cohort"]
    assert [set(body) for body in bodies] == [{"time", "grant_id", "commitment"}]


def test_reports_do_not_say_that_rows_changed(site_at: SiteAt, folder: Path) -> None:
    kinds = []
    for name, changed in (("same", ROWS), ("other", ROWS + "0.1,1\n")):
        (folder / name).mkdir()
        (folder / name / "data.csv").write_text(ROWS)
        site = site_at(folder / name)
        turn.take(site, ask(site))
        (folder / name / "data.csv").write_text(changed)
        turn.take(site, ask(site, 2))
        kinds.append([e.kind for e in site.ledger.entries()])

    assert kinds[0] == kinds[1]


# -- rows that change


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    ("choice", "verdict"),
    [
        ("continue", Verdict.DONE),
        ("ask", Verdict.TURN_FAILED),
        ("stop", Verdict.TURN_FAILED),
    ],
)
def test_rows_that_change_in_mid_study_follow_the_policy(
    site_at: SiteAt, folder: Path, choice: str, verdict: Verdict, restart: bool
) -> None:
    site = site_at(folder, under(choice))
    same = [turn.take(site, ask(site, number)).verdict for number in (1, 2)]
    (folder / "data.csv").write_text(ROWS.replace("0.2,0\n", "0.3,0\n", 1))
    if restart:
        site.ledger.shut()
        site = site_at(folder, under(choice))

    asked = ask(site, 3)
    reply = turn.take(site, asked)

    assert same == [Verdict.DONE, Verdict.DONE]
    assert reply.verdict == verdict
    if verdict != Verdict.DONE:  # nothing but the one word
        assert reply == TurnReply(Verdict.TURN_FAILED, asked.grant_id, 3, 3)


def test_the_same_rows_in_another_order_are_no_change(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder, under("stop"))
    turn.take(site, ask(site))
    header, *lines = ROWS.splitlines(keepends=True)
    (folder / "data.csv").write_text(header + "".join(sorted(lines)))

    assert turn.take(site, ask(site, 2)).verdict == Verdict.DONE


def test_a_study_that_waits_goes_on_when_a_person_agrees(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder, under("ask"))
    turn.take(site, ask(site))
    (folder / "data.csv").write_text(ROWS + "0.5,1\n")
    waiting = turn.take(site, ask(site, 2))
    command = ["agree", waiting.grant_id, "--site", str(folder / "site.toml")]

    agreed = CliRunner().invoke(app, command)
    again = CliRunner().invoke(app, command)

    assert (agreed.exit_code, again.exit_code) == (0, 2)
    assert turn.take(site, ask(site, 3)).verdict == Verdict.DONE
    (folder / "data.csv").write_text(ROWS + "0.6,1\n")  # another change, not agreed
    assert turn.take(site, ask(site, 4)).verdict == Verdict.TURN_FAILED


def test_a_stopped_study_stays_stopped_when_its_rows_come_back(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder, under("stop"))
    turn.take(site, ask(site))
    (folder / "data.csv").write_text(ROWS + "0.5,1\n")
    turn.take(site, ask(site, 2))
    (folder / "data.csv").write_text(ROWS)

    reply = turn.take(site, ask(site, 3))

    assert reply.verdict == Verdict.TURN_FAILED
    assert not Cohorts(folder / "state" / "cohorts").agree(reply.grant_id)


def test_a_change_is_told_when_a_failed_turn_is_told(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder, under("stop"))
    turn.take(site, ask(site))
    (folder / "data.csv").write_text(ROWS + "0.5,1\n")
    asked, site.paced = ask(site, 2), True
    start = time.monotonic()

    reply = turn.take(site, asked)

    assert reply.verdict == Verdict.TURN_FAILED
    assert time.monotonic() - start >= 0.9 * STUDY.aggregation.round_deadline_s


@pytest.mark.parametrize(
    ("choice", "verdict"),
    [("continue", Verdict.DONE), ("stop", Verdict.TURN_FAILED)],
)
def test_a_record_that_was_edited_is_not_believed(
    site_at: SiteAt, folder: Path, choice: str, verdict: Verdict
) -> None:
    site = site_at(folder, under(choice))
    asked = ask(site)
    turn.take(site, asked)
    record = record_of(site, asked.grant_id)
    record["began"]["rows"] += 1
    path = folder / "state" / "cohorts" / f"{asked.grant_id}.json"
    path.write_text(json.dumps(record))
    site.forget(asked.grant_id)

    assert turn.take(site, ask(site, 2)).verdict == verdict


def test_persons_whom_the_list_takes_out_are_no_change(
    site_at: SiteAt, folder: Path
) -> None:
    (folder / "data.csv").write_text("w,x,y\n" + "1,0.2,0\n2,0.9,1\n" * 20)
    (folder / "gone.csv").write_text("")
    data = STUDY.data.model_copy(update={"person": "w"})
    study = STUDY.model_copy(update={"data": data})

    def edit(text: str) -> str:
        text = under("stop")(text)
        return text.replace("public_size", 'exclude = "gone.csv"\npublic_size')

    site = site_at(folder, edit)
    answer = policy.consider(site, Offer("run", study.canonical(), PLAN))
    verdicts = []
    for number, gone in enumerate(("", "1\n", "1\n3\n", "edited"), start=1):
        if gone != "edited":
            (folder / "gone.csv").write_text(gone)
        else:  # after a list that took nobody out, an edit is a change like any other
            (folder / "data.csv").write_text("w,x,y\n" + "2,0.8,1\n" * 20)
        asked = TurnRequest(
            "run", answer.grant_id, number, number, study.digest(), MODEL
        )
        verdicts.append(turn.take(site, asked).verdict)

    assert verdicts == [Verdict.DONE] * 3 + [Verdict.TURN_FAILED]
    seen = record_of(site, answer.grant_id)["seen"]
    assert [each["rows"] for each in seen] == [40, 20, 20]
