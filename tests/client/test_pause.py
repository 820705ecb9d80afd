"""A person stops what leaves: at once, beside a running client, and for good."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from typer.testing import CliRunner

from guilder.cli import app
from guilder_client import policy, turn
from guilder_client.pause import Pause
from guilder_client.site import Site
from guilder_shared.messages import Offer, TurnRequest, Verdict, pack
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

SiteAt = Callable[..., Site]
STUDY = Study.load(
    Path(__file__).parents[1] / "small.toml",
    (
        "aggregation.round_deadline_s=600",
        "study.purpose=p",
        "training.rounds=4",
    ),
)
OFFER = Offer("run", STUDY.canonical(), accounting.solve(STUDY))
MODEL = pack(registry.initial(STUDY))


@pytest.fixture
def site(site_at: SiteAt, tmp_path: Path) -> Site:
    (tmp_path / "data.csv").write_text("x,y\n0.2,0\n0.9,1\n")
    return site_at(tmp_path)


def request_of(site: Site, number: int = 1) -> TurnRequest:
    [grant] = site.ledger.grants()
    return TurnRequest("run", grant.grant_id, number, 1, STUDY.digest(), MODEL)


def pause(folder: Path, *options: str) -> str:
    words = ["client", "pause", *options, "--site", str(folder / "site.toml")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_paused_site_takes_no_offer_and_no_turn_and_charges_nothing(
    site: Site, tmp_path: Path
) -> None:
    before = policy.consider(site, OFFER)
    pause(tmp_path)

    offered = policy.consider(site, OFFER)
    reply = turn.take(site, request_of(site))

    assert before.verdict == Verdict.ACCEPTED
    assert (offered.verdict, reply.verdict) == (Verdict.BUSY, Verdict.BUSY)
    assert reply.reason == "GLD-S062: site 'a' is paused"
    assert site.ledger.grants()[0].turns == {}
    pause(tmp_path, "--end")
    assert turn.take(site, request_of(site)).verdict == Verdict.DONE


def test_paused_at_once_a_turn_that_is_being_computed_stays_here_sealed(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.consider(site, OFFER)
    train = turn._train

    def meanwhile(*arguments: Any) -> Any:
        pause(tmp_path, "--now")
        return train(*arguments)

    monkeypatch.setattr(turn, "_train", meanwhile)
    held = turn.take(site, request_of(site))
    [sealed] = (tmp_path / "state" / "turns").iterdir()
    bytes_sealed = sealed.read_bytes()
    pause(tmp_path, "--end")
    later = turn.take(site, request_of(site))

    assert (held.verdict, held.update, held.head) == (Verdict.BUSY, b"", None)
    assert later.verdict == Verdict.DONE
    assert later.update == bytes_sealed
    assert [t.attempts for t in site.ledger.grants()[0].turns.values()] == [1]


def test_a_pause_without_now_lets_a_turn_end_that_has_begun(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.consider(site, OFFER)
    train = turn._train

    def meanwhile(*arguments: Any) -> Any:
        pause(tmp_path)
        return train(*arguments)

    monkeypatch.setattr(turn, "_train", meanwhile)

    assert turn.take(site, request_of(site)).verdict == Verdict.DONE
    assert turn.take(site, request_of(site, 2)).verdict == Verdict.BUSY


def test_a_pause_survives_the_client(
    site: Site, site_at: SiteAt, tmp_path: Path
) -> None:
    policy.consider(site, OFFER)
    pause(tmp_path, "--now")
    site.ledger.shut()

    reopened = site_at(tmp_path)

    assert reopened.holds
    assert turn.take(reopened, request_of(reopened)).verdict == Verdict.BUSY


@pytest.mark.parametrize("text", ["", "{", "[]", '{"since": 1}'])
def test_a_pause_file_that_cannot_be_read_is_a_pause_at_once(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "pause.json").write_text(text)

    assert Pause(tmp_path).holds()


def test_a_pause_is_durable_before_the_command_returns(tmp_path: Path) -> None:
    """A process that is killed right afterwards leaves a paused site."""
    child = (
        "import os, sys; from pathlib import Path; "
        "from guilder_client.pause import Pause; "
        "Pause(Path(sys.argv[1])).begin(now=True); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", child, str(tmp_path)], check=False)

    assert Pause(tmp_path).holds()


@pytest.mark.parametrize("before", ["", "paused"])
def test_a_full_disk_cannot_keep_a_person_from_pausing(
    small_disk: Path, before: str
) -> None:
    switch = Pause(small_disk)
    if before:
        switch.begin(now=False)
    with contextlib.suppress(OSError), (small_disk / "full").open("wb", 0) as file:
        while file.write(bytes(4096)):
            pass
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "one more").write_bytes(b"x")

    state = switch.begin(now=True)

    assert state.now
    assert switch.holds()
    assert not (small_disk / "pause.json.part").exists()
    assert switch.end()
    assert not switch.holds()


def large() -> RecordDict:
    model = Array(np.zeros(8_000_000, np.uint8))
    return RecordDict({"model": ArrayRecord({"bytes": model})})


def large_reply(begun: threading.Event) -> ClientApp:
    """An app whose reply has 8 MB: it is uploaded in many pieces."""
    client_app = ClientApp()

    @client_app.train()
    def train(message: Message, _context: object) -> Message:
        begun.set()
        return Message(large(), reply_to=message)

    return client_app


@pytest.mark.slow  # many megabytes, three times
def test_an_upload_under_way_is_broken_off_and_made_good_after_the_pause(
    consortium: Any, eventually: Any, tmp_path: Path
) -> None:
    switch, begun, looks = Pause(tmp_path), threading.Event(), list[float]()

    def held(_reply: Message) -> bool:
        looks.append(time.monotonic())
        if len(looks) == 40:  # in the middle of some piece
            switch.begin(now=True)
        return switch.holds()

    hub = consortium.hub()
    consortium.node("alder", hub.port, large_reply(begun), held=held)
    grid = hub.grid("run-1")
    eventually(lambda: list(grid.get_node_ids()))

    def ask() -> str:
        [node_id] = eventually(lambda: list(grid.get_node_ids()))
        message = grid.create_message(large(), "train", node_id, "1", 60.0)
        return str(grid.push_messages([message])[0])

    first = ask()
    lost = eventually(lambda: list(grid.pull_messages([first])))
    assert lost[0].has_error()  # not one whole reply has come
    assert len(looks) >= 40

    begun.clear()
    second = ask()
    eventually(begun.is_set)  # it is computed again, and held again
    again = eventually(lambda: list(grid.pull_messages([second])))
    assert again[0].has_error()

    switch.end()
    answers = again
    for _ in range(20):  # asked again, as a server does, until the site is back
        if not answers[0].has_error():
            break
        asked = ask()
        answers = eventually(lambda asked=asked: list(grid.pull_messages([asked])))
    array = answers[0].content.array_records["model"]["bytes"]
    assert array.shape == (8_000_000,)
