"""A site that is revoked while it sends: cut off in mid-upload, and nothing is kept."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from guilder_client.node import Node
from guilder_server.grid import Sites
from guilder_shared.errors import EnrolmentError

Office = Any  # the fixture `office`; see conftest.py

MODEL_BYTES = 40_000_000  # more than may come side by side: each is sent alone
PART_BYTES = 64 << 10  # of an upload, between two looks at whether it is held
FAST_PARTS = 100  # more than one object of 5 MiB: some of the answer is stored
SLOW_S = 0.4  # between two of the others: the second object alone would take 25 s
SOON_S = 10.0  # it is cut within a second, and this machine may be busy


def numbers_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, MODEL_BYTES, np.uint8)


def model_of(seed: int) -> RecordDict:
    numbers = Array(numbers_of(seed))
    return RecordDict({"model": ArrayRecord({"numbers": numbers})})


class Sender:
    """A client that answers with a large model, once it may."""

    def __init__(self, port: int, keys: Path, seed: int, wait_s: float) -> None:
        self.may_answer, self.stop = threading.Event(), threading.Event()
        self.parts: list[float] = []  # when each began to be sent
        self.ended: list[EnrolmentError] = []
        app = ClientApp()

        @app.train()
        def train(message: Message, _context: Any) -> Message:
            self.may_answer.wait(60)
            return Message(model_of(seed), reply_to=message)

        def held(_reply: Message) -> bool:
            self.parts.append(time.monotonic())
            if len(self.parts) > FAST_PARTS:
                time.sleep(wait_s)
            return False

        self._node = Node(f"https://127.0.0.1:{port}", keys, app, {}, held=held)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            self._node.run_forever(self.stop)
        except EnrolmentError as error:
            self.ended.append(error)


@pytest.fixture
def senders(office: Office, eventually: Callable[..., Any]) -> Iterator[list[Sender]]:
    """A site that sends slowly, and one that does not; both online."""
    keys = [office.join(office.invite(name)) for name in ("bank-a", "bank-b")]
    found = [
        Sender(office.hub.port, each, seed, wait_s)
        for each, seed, wait_s in zip(keys, (1, 2), (SLOW_S, 0.0), strict=True)
    ]
    eventually(lambda: len(office.hub.online()) == 2)
    yield found
    for each in found:
        each.may_answer.set()
        each.stop.set()


class Between:
    """A run's Grid: `act` is called after each look that found no answer."""

    def __init__(self, grid: Any, act: Callable[[], object]) -> None:
        self._grid, self._act = grid, act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def site_names(self) -> dict[int, str]:
        self._act()
        names: dict[int, str] = self._grid.site_names()
        return names


def revoke(office: Office) -> None:
    with office.admin() as admin:
        admin.decide("bank-a", "revoke")


def ask(office: Office, answers: list[np.ndarray], act: Callable[[], object]) -> None:
    """A turn of both sites, as a run asks for it."""
    grid: Any = Between(office.hub.grid("run-1"), act)
    contents = dict.fromkeys(grid.get_node_ids(), model_of(0))
    for _, reply in Sites(grid).ask(contents, "train", group="1", timeout_s=50):
        answers.append(reply.array_records["model"]["numbers"].numpy())


def files_in(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@pytest.mark.timeout(120)
@pytest.mark.attack("a site", "a revoked certificate, in mid-upload", "GLD-E013")
def test_who_is_revoked_in_mid_upload_is_cut_off_and_nothing_of_it_is_kept(
    office: Office, senders: list[Sender], eventually: Callable[..., Any]
) -> None:
    slow, other = senders
    folder, answers = office.folder / "server", list[np.ndarray]()
    before = files_in(folder)
    run = threading.Thread(target=ask, args=(office, answers, int), daemon=True)
    run.start()
    slow.may_answer.set()
    eventually(lambda: len(slow.parts) > FAST_PARTS)
    other.may_answer.set()  # and waits for its turn to send

    revoke(office)
    revoked_s = time.monotonic()
    (error,) = eventually(lambda: slow.ended, timeout_s=SOON_S)
    run.join(SOON_S)

    assert error.error_id == "GLD-E013"
    assert len(slow.parts) * PART_BYTES < MODEL_BYTES / 2
    assert slow.parts[-1] < revoked_s + SOON_S
    (answer,) = answers  # of the other, which has the slow one's room at once
    assert np.array_equal(answer, numbers_of(2))
    assert office.hub._links.landings == {}
    assert office.hub._links.object_store.store == {}
    after = files_in(folder)
    assert after.keys() == before.keys()
    assert sum(after.values()) - sum(before.values()) < PART_BYTES


@pytest.mark.timeout(120)
def test_the_room_of_who_is_revoked_between_two_looks_is_given_to_others_at_once(
    office: Office, senders: list[Sender], eventually: Callable[..., Any]
) -> None:
    slow, other = senders
    answers = list[np.ndarray]()

    def act() -> None:
        if len(slow.parts) > FAST_PARTS and not other.may_answer.is_set():
            revoke(office)
            other.may_answer.set()

    run = threading.Thread(target=ask, args=(office, answers, act), daemon=True)
    run.start()
    slow.may_answer.set()
    eventually(lambda: slow.ended, timeout_s=30)
    run.join(SOON_S)

    (answer,) = answers
    assert np.array_equal(answer, numbers_of(2))
    assert office.hub._links.landings == {}
