"""Everything that can leave a site: before a charge nothing of its rows, after it only
the noised update, of one size, or one word at the deadline.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from guilder_client import policy, turn
from guilder_client.site import Site
from guilder_shared import reports, wire
from guilder_shared.errors import IntegrityError
from guilder_shared.messages import (
    Answer,
    Close,
    Offer,
    Receipt,
    TurnReply,
    TurnRequest,
    Verdict,
    pack,
    sha256,
)
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study

SiteAt = Callable[..., Site]
SECRET = "SECRET-CELL"
PARTS: dict[str, Any] = {
    "schema": 1,
    "study": {"name": "t", "recipe": "tabular-classification", "purpose": "test"},
    "data": {
        "kind": "table",
        "dataset": "d",
        "target": "y",
        "columns": {
            "x": {"kind": "number", "low": 0.0, "high": 1.0},
            "k": {"kind": "category", "values": ["a", "b"]},
        },
    },
    "model": {"name": "mlp", "hidden": [4]},
    "training": {
        "rounds": 4,
        "local_steps": 3,
        "sample_rate": 0.5,
        "learning_rate": 1.0,
    },
    "privacy": {
        "unit": "record",
        "mechanism": "site-noise",
        "epsilon": 2.0,
        "delta": 1e-6,
        "clip_norm": 1.0,
    },
    "aggregation": {"min_sites": 1, "round_deadline_s": 2.0, "spare_turns": 2},
    "evaluation": {"on": "none"},
}
STUDY = Study.model_validate(PARTS)
OPEN_STUDY = Study.model_validate(
    {**PARTS, "privacy": {**PARTS["privacy"], "mechanism": "none"}}
)
PLAN = accounting.solve(STUDY)
MODEL = pack(registry.initial(STUDY))
HEADER = b"x,k,y\n"
DATASETS = {
    "one row": b"0.5,a,1\n",
    "no rows": b"",
    "many rows": b"0.5,a,1\n0.1,b,0\n" * 2000,
    "rows that are none": b"nan,\xff\xfe,1\n,,\n1e999,a,0\n\x00,\x00,1\n" * 30,
    "an open quote": b'0.5,a,1\n"' + b"0.5,a,1\n" * 50,
    "text of a secret": f"{SECRET},{SECRET},1\n".encode() * 40,
}


def write(folder: Path, rows: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "data.csv").write_bytes(HEADER + rows)


def accept(site: Site, study: Study = STUDY) -> Answer:
    plan = PLAN if study is STUDY else accounting.solve(study)
    return policy.consider(site, Offer("run", study.canonical(), plan))


def ask(site: Site, number: int = 1, study: Study = STUDY) -> TurnRequest:
    answer = accept(site, study)
    assert answer.verdict == Verdict.ACCEPTED, answer
    return TurnRequest("run", answer.grant_id, number, 1, study.digest(), MODEL)


def shape(reply: TurnReply) -> dict[str, Any]:
    """A reply as it travels: all its words, and of its arrays the outside."""
    content = wire.encode_reply(reply)
    words = dict(content.config_records[wire.FIELDS])
    arrays = {
        (name, key): (array.dtype, tuple(array.shape), array.stype, len(array.data))
        for name, record in content.array_records.items()
        for key, array in record.items()
    }
    commitment = len(str(words["head"]))  # a salted hash: other bytes each time
    return {**words, "grant_id": "", "head": commitment, "arrays": arrays}


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def test_replies_of_any_data_have_the_same_words_and_the_same_size(
    site_at: SiteAt, tmp_path: Path
) -> None:
    shapes = {}
    for number, (name, rows) in enumerate(DATASETS.items()):
        folder = tmp_path / str(number)
        write(folder, rows)
        site = site_at(folder)
        shapes[name] = shape(turn.take(site, ask(site)))

    assert shapes["one row"]["verdict"] == "done"
    assert shapes["one row"]["reason"] == ""
    assert all(found == shapes["one row"] for found in shapes.values()), shapes


def test_answers_to_an_offer_are_the_same_whatever_the_rows(
    site_at: SiteAt, tmp_path: Path
) -> None:
    answers = set()
    for number, rows in enumerate(DATASETS.values()):
        write(tmp_path / str(number), rows)
        answers.add(replace(accept(site_at(tmp_path / str(number))), grant_id=""))

    assert answers == {Answer(Verdict.ACCEPTED, "a", public_size=100)}


def test_a_parquet_cell_that_is_no_text_does_not_stop_a_turn(
    site_at: SiteAt, tmp_path: Path
) -> None:
    broken = pa.array([b"\xff\xfe"]).view(pa.string())
    kinds = pa.chunked_array([["a", "b"], broken])
    rows = pa.table({"x": [0.5, 0.1, 0.9], "k": kinds, "y": [1, 0, 1]})
    parquet.write_table(rows, tmp_path / "data.parquet")
    site = site_at(tmp_path, kind="parquet", path="data.parquet")

    assert turn.take(site, ask(site)).verdict == Verdict.DONE


@pytest.mark.parametrize(
    "where",
    [
        "guilder_client.site.Site.read",
        "guilder_client.turn._train",
        "guilder_client.turn.pack_update",
        "guilder_client.sealed.SealedTurns.write",
        "guilder_shared.privacy.ledger.Ledger.seal",
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        MemoryError(SECRET),
        pa.ArrowInvalid(f"Failed to parse {SECRET}"),
        IntegrityError("GLD-I030", "anything"),
    ],
)
def test_after_the_charge_no_error_says_more_than_one_word(
    site_at: SiteAt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
    error: Exception,
) -> None:
    write(tmp_path, DATASETS["text of a secret"])
    site = site_at(tmp_path)
    asked = ask(site)
    monkeypatch.setattr(where, failing(error))

    with caplog.at_level(logging.DEBUG):
        reply = turn.take(site, asked)

    assert reply == TurnReply(Verdict.TURN_FAILED, asked.grant_id, 1, 1)
    assert SECRET not in caplog.text
    assert "turn 1 of t failed" in caplog.text


def test_a_failed_turn_is_told_at_the_end_of_the_round_however_short(
    site_at: SiteAt, tmp_path: Path
) -> None:
    write(tmp_path, b"")
    site = site_at(tmp_path)
    asked = ask(site)
    (tmp_path / "data.csv").unlink()
    site.paced = True
    start = time.monotonic()

    reply = turn.take(site, asked)

    assert reply.verdict == Verdict.TURN_FAILED
    assert time.monotonic() - start >= 0.9 * STUDY.aggregation.round_deadline_s


@pytest.mark.attack(
    "a server", "an unprotected turn under an old permission", "GLD-S002"
)
def test_an_unprotected_study_needs_permission_when_offered_and_at_each_turn(
    site_at: SiteAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, DATASETS["one row"])
    refused = accept(site_at(tmp_path / "strict"), OPEN_STUDY)
    site = site_at(tmp_path, unprotected="true")
    asked = ask(site, study=OPEN_STUDY)
    first = turn.take(site, asked)
    site.ledger.shut()

    site = site_at(tmp_path)  # the officer has withdrawn the permission
    monkeypatch.setattr(Site, "read", failing(AssertionError("rows were read")))
    again = turn.take(site, asked)
    second = turn.take(site, replace(asked, turn_no=2))

    assert refused.reason.startswith("GLD-S002")
    assert first.verdict == Verdict.DONE
    for reply in (again, second):
        assert reply.verdict == Verdict.REFUSED_BY_POLICY
        assert reply.reason.startswith("GLD-S002")
        assert reply.update == b""


def test_reports_of_sites_with_other_rows_differ_in_hashes_of_updates_alone(
    site_at: SiteAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _size: "0" * 32)
    hashes = {"hash", "prev", "signature", "sha256", "receipt", "public_key"}
    hashes |= {"commitment"}  # salted; one more of each grant's rows
    times = {"time", "as_of", "accepted_at", "charged_at", "sealed_at"}
    officers = {"officer", "serial", "issued", "expires", "approval", "orders"}

    def told(part: Any) -> Any:
        if isinstance(part, dict):
            hidden = hashes | times | officers
            return {k: told(v) for k, v in part.items() if k not in hidden}
        return [told(each) for each in part] if isinstance(part, list) else part

    found = []
    for number, rows in enumerate(DATASETS.values()):
        write(tmp_path / str(number), rows)
        site = site_at(tmp_path / str(number))
        reply = turn.take(site, ask(site))
        receipt = Receipt(1, sha256(reply.update))
        turn.close(site, Close("run", reply.grant_id, receipt))
        found.append(told(reports.build(site.ledger)))

    assert all(each == found[0] for each in found)


def test_a_repeated_attempt_of_a_deployed_site_draws_new_keys(
    site_at: SiteAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, DATASETS["many rows"])
    site = site_at(tmp_path)
    asked, roots = ask(site), list[bytes]()
    choose = TurnKeys.choose

    def watch(*args: Any, **named: Any) -> TurnKeys:
        assert named["simulation_seed"] is None
        roots.append(choose(*args, **named).root)
        return TurnKeys(roots[-1])

    monkeypatch.setattr(TurnKeys, "choose", watch)
    with monkeypatch.context() as patch:
        patch.setattr(site.sealed, "write", failing(OSError(28, "no space")))
        for _ in range(2):
            turn.take(site, asked)
    turn.take(site, asked)
    turn.take(site, replace(asked, turn_no=2))

    assert len(set(roots)) == len(roots) == 4


def test_a_simulated_site_gives_the_lost_attempts_bytes_again(
    site_at: SiteAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, DATASETS["many rows"])
    site = site_at(tmp_path)
    site.seed = 7
    asked = ask(site)
    with monkeypatch.context() as patch:
        patch.setattr(site.ledger, "seal", failing(OSError(28, "no space")))
        turn.take(site, asked)
    lost = site.sealed.path(asked.grant_id, 1).read_bytes()

    assert turn.take(site, asked).update == lost


@pytest.mark.parametrize(
    ("smuggled", "error_id"),
    [
        (
            b'"simulation":{"partition":{"kind":"iid"},"seed":7,"sites":1,"source":"s"},',
            "GLD-C020",
        ),
        (b'"seed":7,', "GLD-C010"),
    ],
)
@pytest.mark.attack("a server", "a seed smuggled into an offer", "GLD-C010")
def test_a_seed_in_an_offer_is_refused(
    site_at: SiteAt, tmp_path: Path, smuggled: bytes, error_id: str
) -> None:
    write(tmp_path, DATASETS["one row"])
    text = STUDY.canonical().replace(b'"study":{', smuggled + b'"study":{')

    answer = policy.consider(site_at(tmp_path), Offer("run", text, PLAN))

    assert answer.verdict == Verdict.REFUSED_BY_POLICY
    assert answer.reason.startswith(error_id)


def test_a_test_seed_in_a_private_study_is_refused_and_would_not_count(
    site_at: SiteAt, tmp_path: Path
) -> None:
    write(tmp_path, DATASETS["one row"])
    rate = b'"sample_rate":0.5'
    text = STUDY.canonical().replace(rate, rate + b',"test_seed":1')
    training = STUDY.training.model_copy(update={"test_seed": 1})
    forged = STUDY.model_copy(update={"training": training})  # past every check

    answer = policy.consider(site_at(tmp_path), Offer("run", text, PLAN))
    roots = {
        TurnKeys.choose(forged, site="a", round_no=1, turn_no=1).root for _ in range(3)
    }

    assert answer.verdict == Verdict.REFUSED_BY_POLICY
    assert len(roots) == 3
