"""A server's answers, spoilt: the node goes online anew, whatever came."""

import logging
import random
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from guilder_client.node import LARGEST_MESSAGE, Node, Pace
from guilder_client.rehearsal import Nobody, Talk

CALLS = (
    "activate-node",
    "pull-messages",
    "pull-object",
    "confirm-message-received",
    "push-messages",
    "push-object",
)


def content() -> RecordDict:
    model = Array(np.arange(100_000, dtype=np.uint8))
    return RecordDict({"model": ArrayRecord({"bytes": model})})


class Spoiling(Nobody):
    """A server that spoils one answer after the other, of any kind."""

    def __init__(self, stop: threading.Event, num: int, seed: int) -> None:
        super().__init__(stop)
        self.counts: Counter[str] = Counter()
        self._random, self._num = random.Random(seed), num
        self._spoils = CALLS[0]
        self.follow(self._for_ever())

    def _for_ever(self) -> Talk:
        while True:
            yield content(), "train", "1"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        call = request.url.path.rpartition("/")[2]
        try:
            answer = super().handle_request(request)
        except (KeyError, ValueError):  # it asks for what only the spoilt bytes name
            length, nothing = {"content-length": "0"}, httpx.ByteStream(b"")
            return httpx.Response(404, headers=length, stream=nothing)
        self.sent.clear()
        anew = call == CALLS[0] and self._random.random() < 0.5
        if call != self._spoils and not anew:
            return answer
        self._spoils = self._random.choice(CALLS[1:])
        self.counts[call] += 1
        if self.counts.total() == self._num:
            self._stop.set()
        body = self._spoil(answer.read())
        length = {"content-length": str(len(body))}
        if call == "pull-messages":
            length["guilder-message-bytes"] = self._random.choice(
                ["", "-1", "9" * 15, "9" * 40, str(LARGEST_MESSAGE + 1), "1e9", "²"]
            )
        return httpx.Response(200, headers=length, content=body, request=request)

    def _spoil(self, body: bytes) -> bytes:
        data, place = bytearray(body), self._random.randrange(len(body) + 1)
        kind = self._random.randrange(6)
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << self._random.randrange(8)
        elif kind == 1:
            data[place : place + 1] = self._random.randbytes(9)
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            data[place:place] = data[: self._random.randint(1, 60)]
        elif kind == 4:
            data[place:] = b"\xff" * 30
        else:
            data = bytearray(b"\x12\x7f" * self._random.randint(1, 200)) + data
        return bytes(data)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of refusals need no log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(consortium: Any, num: int, seed: int) -> Counter[str]:
    app, stop = ClientApp(), threading.Event()

    @app.train()
    def train(message: Message, _context: Any) -> Message:
        return Message(content(), reply_to=message)

    server = Spoiling(stop, num, seed)
    pace = Pace(first_retry_s=0.0001, longest_retry_s=0.0001)
    keys = consortium.site("alder")
    node = Node("https://127.0.0.1:1", keys, app, {}, transport=server, pace=pace)
    node.run_forever(stop)
    return server.counts


def test_a_node_outlives_three_hundred_spoilt_answers(consortium: Any) -> None:
    counts = run(consortium, 300, seed=1)

    assert set(counts) == set(CALLS)


@pytest.mark.slow
def test_a_node_outlives_ten_thousand_spoilt_answers(consortium: Any) -> None:
    seed = secrets.randbelow(2**31)
    print(f"seed {seed}")

    assert sum(run(consortium, 10_000, seed).values()) == 10_000
