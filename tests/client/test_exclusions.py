"""Whoever is on the list is in no batch, file, log or byte from then on."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from guilder_client import policy, turn
from guilder_client.exclusions import read_list
from guilder_client.site import Site
from guilder_shared import reports, wire
from guilder_shared.errors import DataError
from guilder_shared.messages import Offer, TurnReply, TurnRequest, Verdict, pack
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.study import Study
from guilder_shared.tables import without_persons
from guilder_shared.tasks import Examples

SiteAt = Callable[..., Site]
PARTS: dict[str, Any] = {
    "schema": 1,
    "study": {"name": "t", "recipe": "tabular-classification", "purpose": "test"},
    "data": {
        "kind": "table",
        "dataset": "d",
        "target": "y",
        "person": "who",
        "columns": {"x": {"kind": "number", "low": 0.0, "high": 1.0}},
    },
    "model": {"name": "logistic"},
    "training": {
        "rounds": 6,
        "local_steps": 1,
        "sample_rate": 1.0,
        "learning_rate": 1.0,
    },
    "privacy": {
        "unit": "record",
        "mechanism": "site-noise",
        "epsilon": 2.0,
        "delta": 1e-6,
        "clip_norm": 1.0,
    },
    "aggregation": {"min_sites": 1, "round_deadline_s": 2.0, "spare_turns": 1},
    "evaluation": {"on": "none"},
}
STUDY = Study.model_validate(PARTS)
NAMELESS = Study.model_validate(
    {**PARTS, "data": {k: v for k, v in PARTS["data"].items() if k != "person"}}
)
PLAN = accounting.solve(STUDY)
MODEL = pack(registry.initial(STUDY))
GONE = ("person-7-secret", "person-9-secret")
PEOPLE = [f"person-{n}-secret" for n in range(20)]


def study_of(unit: str) -> Study:
    person = {"max_records": 4} if unit == "person" else {}
    privacy = {**PARTS["privacy"], "unit": unit, **person}
    return Study.model_validate({**PARTS, "privacy": privacy})


def with_list(text: str) -> str:
    return text.replace(
        "public_size = 100",
        'public_size = 100\npublic_persons = 50\nexclude = "objections.csv"',
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [f"{who},{n / 20},{n % 2}" for n, who in enumerate(PEOPLE)] * 3
    (tmp_path / "data.csv").write_text("who,x,y\n" + "\n".join(rows) + "\n")
    (tmp_path / "objections.csv").write_text("")
    return tmp_path


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Examples]:
    """Everything that training is handed, and so may sample from."""
    seen: list[Examples] = []
    train = turn._train

    def watch(*arguments: Any) -> Any:
        seen.extend(rows for rows in arguments if isinstance(rows, Examples))
        return train(*arguments)

    monkeypatch.setattr(turn, "_train", watch)
    return seen


def ask(site: Site, number: int = 1, study: Study = STUDY) -> TurnRequest:
    answer = policy.consider(
        site, Offer("run", study.canonical(), accounting.solve(study))
    )
    assert answer.verdict == Verdict.ACCEPTED, answer
    return TurnRequest("run", answer.grant_id, number, 1, study.digest(), MODEL)


def xs(rows: Examples) -> set[float]:
    """The persons in a batch, by the one number that each of them has."""
    return {round(float(x) * 20, 3) for x in np.unique(rows.inputs[:, 0])}


@pytest.mark.parametrize("unit", ["record", "person"])
def test_nobody_on_the_list_is_ever_handed_to_the_sampler(
    site_at: SiteAt, folder: Path, batches: list[Examples], unit: str
) -> None:
    site = site_at(folder, with_list)
    study = study_of(unit)
    everybody = turn.take(site, ask(site, 1, study))

    (folder / "objections.csv").write_text("\n".join(GONE))
    later = turn.take(site, ask(site, 2, study))
    site.ledger.shut()
    restarted = site_at(folder, with_list)
    last = turn.take(restarted, ask(restarted, 3, study))

    assert {r.verdict for r in (everybody, later, last)} == {Verdict.DONE}
    first, *rest = batches
    assert len(first) == 60
    assert [len(rows) for rows in rest] == [54, 54]
    assert all(xs(first) - xs(rows) == xs_of(GONE, first) for rows in rest)


def xs_of(people: tuple[str, ...], rows: Examples) -> set[float]:
    scale = sorted(xs(rows))
    return {scale[PEOPLE.index(who)] for who in people}


def test_rows_in_memory_go_as_soon_as_the_list_changes(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder, with_list)
    asked = ask(site)
    turn.take(site, asked)
    assert asked.grant_id in site._rows

    (folder / "objections.csv").write_text(GONE[0])
    policy.consider(site, Offer("other", NAMELESS.canonical(), PLAN))

    assert asked.grant_id not in site._rows


def test_no_file_log_report_or_reply_of_the_site_holds_an_id(
    site_at: SiteAt, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "objections.csv").write_text("\n".join(GONE))
    with caplog.at_level(logging.DEBUG):
        site = site_at(folder, with_list)
        reply = turn.take(site, ask(site))
        written = reports.build(site.ledger)
        (folder / "objections.csv").write_text(f'"{GONE[0]}"')
        refused = turn.take(site, TurnRequest("run", *asked_again(reply)))
        offered = policy.consider(site, Offer("other", STUDY.canonical(), PLAN))
    site.ledger.shut()

    assert refused.verdict == offered.verdict == Verdict.REFUSED_BY_POLICY
    told = [caplog.text, str(written), str(offered), str(refused)]
    told += [str(wire.encode_reply(each)) for each in (reply, refused)]
    files = [p for p in (folder / "state").rglob("*") if p.is_file()]
    held = [path.read_bytes().decode("latin-1") for path in files] + told
    assert len(files) >= 4
    for who in GONE:
        assert not any(who in text for text in held)


def asked_again(reply: TurnReply) -> tuple[str, int, int, str, bytes]:
    return reply.grant_id, 2, 2, STUDY.digest(), MODEL


def test_an_exclusion_is_stated_once_without_ids_and_gives_nothing_back(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder, with_list)
    turn.take(site, ask(site))
    spent = site.ledger.totals()["people"].spent_epsilon

    (folder / "objections.csv").write_text("\n".join(GONE))
    turn.take(site, ask(site, 2))
    (folder / "objections.csv").write_text("\n".join(reversed(GONE)) + "\n\n")
    turn.take(site, ask(site, 3))

    said = [e.content() for e in site.ledger.entries() if e.kind == "exclude"]
    assert [s["in_force"] for s in said] == [True, True]  # the empty list, and theirs
    assert said[0]["commitment"] != said[1]["commitment"]
    assert site.ledger.totals()["people"].spent_epsilon >= spent


def test_a_list_that_the_site_file_no_longer_names_is_said_to_be_out_of_force(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder, with_list)
    ask(site)
    site.ledger.shut()

    site = site_at(folder, lambda t: with_list(t).replace('exclude = "', "#"))
    ask(site)

    assert not site.ledger.exclusions()["d"].in_force


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_text("a,b\n"),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["missing", "no UTF-8", "two columns", "a folder"],
)
def test_a_list_that_cannot_be_read_stops_offers_and_turns_before_a_charge(
    site_at: SiteAt, folder: Path, damage: Callable[[Path], object]
) -> None:
    site = site_at(folder, with_list)
    asked = ask(site)
    damage(folder / "objections.csv")

    reply = turn.take(site, asked)
    answer = policy.consider(site, Offer("other", STUDY.canonical(), PLAN))

    assert reply.verdict == answer.verdict == Verdict.REFUSED_BY_POLICY
    assert reply.reason == answer.reason  # whatever is wrong with the list
    assert reply.reason.startswith("GLD-S040")
    assert [e.kind for e in site.ledger.entries()].count("spend") == 0


def test_a_study_that_names_no_person_is_refused_where_a_list_applies(
    site_at: SiteAt, folder: Path
) -> None:
    offer = Offer("run", NAMELESS.canonical(), PLAN)

    with_one = policy.consider(site_at(folder, with_list), offer)

    assert with_one.verdict == Verdict.REFUSED_BY_POLICY
    assert with_one.reason.startswith("GLD-D040")


def test_a_study_accepted_before_the_list_takes_no_turn_without_a_person(
    site_at: SiteAt, folder: Path
) -> None:
    site = site_at(folder, lambda t: with_list(t).replace('exclude = "', "#"))
    asked = ask(site, study=NAMELESS)
    site.ledger.shut()

    reply = turn.take(site_at(folder, with_list), asked)

    assert reply.verdict == Verdict.REFUSED_BY_POLICY
    assert reply.reason.startswith("GLD-D040")


@pytest.mark.parametrize(
    ("cells", "ids", "stay"),
    [
        (pa.array([" a", "b ", "A", None, ""]), ["a ", "b"], [2, 3, 4]),
        (pa.array([7, 8, None, 10**18]), ["007", "+8.0"], [2, 3]),
        (pa.array([7.0, 123456789012.0, None]), ["7", "123456789012"], [2]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x"], [1]),
        (pa.array([1, 2], pa.int8()), ["300", "2", "not a number"], [0]),
        (pa.array(["a"]), [], [0]),
        (pa.array([], pa.string()), ["a"], []),
    ],
    ids=["text", "integers", "floats", "dictionary", "small", "no list", "no rows"],
)
def test_an_id_finds_its_rows_in_a_column_of_any_type(
    cells: pa.Array, ids: list[str], stay: list[int]
) -> None:
    table = pa.table({"who": cells, "row": range(len(cells))})

    assert without_persons(table, "who", ids)["row"].to_pylist() == stay


def test_persons_leave_a_parquet_file_under_its_own_column_name(
    site_at: SiteAt, folder: Path, batches: list[Examples]
) -> None:
    ids = [*range(10)] * 2
    rows = pa.table({"id": ids, "x": [n / 10 for n in ids], "y": [n % 2 for n in ids]})
    parquet.write_table(rows, folder / "data.parquet")
    (folder / "objections.csv").write_text("3\n")

    def edit(text: str) -> str:
        return with_list(text).replace("public_size", 'map = {who = "id"}\npublic_size')

    site = site_at(folder, edit, kind="parquet", path="data.parquet")
    turn.take(site, ask(site))

    assert len(batches[0]) == 18


def test_the_same_persons_are_the_same_list(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ntwo\n")
    (tmp_path / "b").write_bytes(b"\xef\xbb\xbf two \r\n\r\none\r\ntwo")

    assert read_list(tmp_path / "a") == read_list(tmp_path / "b")
    assert "one" not in repr(read_list(tmp_path / "a"))


def test_an_error_of_the_list_names_the_line_and_no_id(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\nsecret;two\n")

    with pytest.raises(DataError) as raised:
        read_list(tmp_path / "a")

    assert "line 2" in str(raised.value)
    assert "secret" not in str(raised.value)
