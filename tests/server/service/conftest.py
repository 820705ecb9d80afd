"""A queue of runs whose sites answer at once, over the in-process Grid."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from guilder_server.init import init_local
from guilder_server.service import Service
from guilder_server.settings import ServerFile
from guilder_shared import wire
from guilder_shared.messages import Answer, TurnReply, Verdict, pack
from guilder_shared.models import registry
from guilder_shared.study import Study
from guilder_simulations.inprocess import InProcessGrid
from guilder_simulations.studies import path_of

NAMES = ("alder", "birch", "cedar")
PLAIN = (
    "privacy.mechanism=none",
    "evaluation.on=none",
    "training.rounds=3",
    "aggregation.min_sites=2",
    "aggregation.round_deadline_s=20",
)


class Queue:
    """A Service over an in-process Grid whose sites answer zeros, when they may."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names = folder, NAMES
        init_local(folder, NAMES, host="127.0.0.1", port=1, control_port=2)
        self.settings = ServerFile.load(folder / "server" / "server.toml")
        self.go = threading.Event()
        self.undecided: set[str] = set()  # studies, by name
        self.offered: list[str] = []  # sites, as often as they were asked
        self.service = Service(self.settings, self.open_grid)

    @staticmethod
    def study(*overrides: str) -> bytes:
        """The study that its sites can answer, as it is submitted."""
        changes = (*PLAIN, *overrides)
        return Study.load(path_of("breast-cancer"), changes).canonical()

    @property
    def runs(self) -> Path:
        return self.settings.server.storage / "runs"

    @contextlib.contextmanager
    def open_grid(self, run_id: str) -> Iterator[InProcessGrid]:
        yield InProcessGrid(self.app(), NAMES)

    def app(self) -> ClientApp:
        app = ClientApp()

        @app.query("offer")
        def offer(message: Message, context: Context) -> Message:
            name = str(context.node_config["site"])
            self.offered.append(name)
            offered = wire.decode_offer(message.content)
            if Study.from_canonical(offered.study).study.name in self.undecided:
                answer = Answer(Verdict.BUSY, name, reason="GLD-S006 nobody decided")
            else:
                answer = Answer(Verdict.ACCEPTED, name, f"grant-{name}", 100)
            return Message(wire.encode_answer(answer), reply_to=message)

        @app.query("close")
        def close(message: Message, context: Context) -> Message:
            done = Answer(Verdict.DONE, str(context.node_config["site"]))
            return Message(wire.encode_answer(done), reply_to=message)

        @app.train()
        def train(message: Message, context: Context) -> Message:
            asked = wire.decode_request(message.content)
            self.go.wait(0.05)
            verdict = Verdict.DONE if self.go.is_set() else Verdict.BUSY
            shapes = registry.shapes(Study.from_canonical(self.study()))
            zeros = {n: np.zeros(shape, np.float32) for n, shape in shapes.items()}
            reply = TurnReply(
                verdict,
                asked.grant_id,
                asked.turn_no,
                asked.round_no,
                pack(zeros) if verdict == Verdict.DONE else b"",
            )
            return Message(wire.encode_reply(reply), reply_to=message)

        return app

    def state(self, run_id: str) -> str:
        (found,) = [s for s in self.service.list() if s["run_id"] == run_id]
        return str(found["state"])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Queue]:
    made = Queue(tmp_path)
    yield made
    made.go.set()
    made.service.stop()
