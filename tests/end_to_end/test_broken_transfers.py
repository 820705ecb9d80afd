"""A large model over lines that break: what has come is not sent again."""

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from guilder_client.incoming import Incoming
from guilder_client.node import Node
from guilder_server.grid import Sites
from guilder_shared import wire
from guilder_shared.pieces import PIECE_BYTES

pytestmark = pytest.mark.timeout(120)

MODEL = np.random.default_rng(4).bytes(4 * PIECE_BYTES + 54_321)
UPDATE = np.random.default_rng(5).bytes(4 * PIECE_BYTES + 12_345)
SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))]
BESIDE = 1 << 18  # handshakes, heads, small objects and what TLS adds, a connection


def app_of(seen: list[bytes], act: Callable[[], None] = lambda: None) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        seen.append(bytes(wire._model_bytes(message.content)))
        act()
        content = RecordDict({wire.MODEL: wire.model_record(UPDATE)})
        return Message(content, reply_to=message)

    return app


def cuts(seed: int, num: int) -> Iterator[int]:
    """Bytes after which a line breaks, of one piece to two; then none does."""
    chance = random.Random(seed)
    for _ in range(num):
        yield chance.randrange(PIECE_BYTES + BESIDE, 2 * PIECE_BYTES)
    yield from itertools.repeat(1 << 40)


def ask(hub: Any, eventually: Any) -> bytes:
    """Ask the one site for a turn as a run does; returns its update."""
    grid = hub.grid("run-1")
    eventually(lambda: list(grid.get_node_ids()), timeout_s=10)
    (node_id,) = grid.get_node_ids()
    content = RecordDict({wire.MODEL: wire.model_record(MODEL)})
    replies = Sites(grid).ask({node_id: content}, "train", group="1", timeout_s=90)
    ((_, reply),) = replies
    hub.close_run("run-1")
    return bytes(wire._model_bytes(reply))


def most(size: int, num_cuts: int) -> int:
    """Bytes that may pass: the model, and beyond it one piece for each cut."""
    return size + size // 100 + num_cuts * PIECE_BYTES + (num_cuts + 4) * BESIDE


@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_whose_line_breaks_goes_on_from_the_pieces_that_came(
    consortium: Any, eventually: Any, line: Any, seed: int
) -> None:
    hub, seen = consortium.hub(), list[bytes]()
    with line(hub.port, down=cuts(seed, 3)) as bad:
        consortium.node("alder", bad.port, app_of(seen))

        update = ask(hub, eventually)

    assert seen == [MODEL]
    assert update == UPDATE
    assert bad.counts["cut"] == 3
    assert bad.passed["down"] < most(len(MODEL), 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_update_whose_line_breaks_goes_on_from_the_pieces_that_came(
    consortium: Any, eventually: Any, line: Any, tmp_path: Path, seed: int
) -> None:
    hub, seen = consortium.hub(), list[bytes]()
    folder = tmp_path / "incoming"
    with line(hub.port, up=cuts(seed, 3)) as bad:
        incoming = Incoming(folder, slow_s=0)
        consortium.node("alder", bad.port, app_of(seen), incoming=incoming)

        update = ask(hub, eventually)

    assert set(seen) == {MODEL}  # asked again, for nothing: its answer is sealed
    assert update == UPDATE
    assert bad.counts["cut"] == 3
    assert bad.passed["up"] < most(len(UPDATE), 3)
    assert bad.passed["down"] < most(len(MODEL), 0)  # it lay on disk
    eventually(lambda: not list(folder.iterdir()))  # and was removed with the turn
    assert hub._gate._holds == {}


def test_a_client_that_was_started_anew_goes_on_with_a_model(
    consortium: Any, eventually: Any, line: Any, tmp_path: Path
) -> None:
    hub, seen = consortium.hub(), list[bytes]()
    folder, modes = tmp_path / "incoming", set[int]()
    keys = consortium.site("alder")

    def start(port: int) -> threading.Event:
        stop, incoming = threading.Event(), Incoming(folder, slow_s=0)
        url, config = f"https://127.0.0.1:{port}", {"site": "alder"}
        node = Node(url, keys, app_of(seen), config, incoming=incoming)
        threading.Thread(target=node.run_forever, args=(stop,), daemon=True).start()
        return stop

    with line(hub.port, down=cuts(1, 1)) as bad:
        answers = list[bytes]()
        asking = threading.Thread(target=lambda: answers.append(ask(hub, eventually)))
        asking.start()
        first = start(bad.port)
        eventually(lambda: bad.counts["cut"] == 1, timeout_s=20)
        first.set()
        modes |= {path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())}
        second = start(bad.port)
        asking.join(60)
        eventually(lambda: not list(folder.iterdir()))
        second.set()

    assert answers == [UPDATE]
    assert set(seen) == {MODEL}
    assert modes == {0o700, 0o600}
    assert bad.passed["down"] < most(len(MODEL), 2)  # the first may have begun anew
