"""Three sites on the in-process Grid, each of which does as a test tells it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from guilder_server import rounds
from guilder_server.grid import Sites
from guilder_server.runstore import RunStore
from guilder_shared import wire
from guilder_shared.messages import (
    Answer,
    Plan,
    TurnReply,
    TurnRequest,
    Verdict,
    Weights,
    pack,
    unpack,
)
from guilder_shared.models import registry
from guilder_shared.study import Study
from guilder_simulations.inprocess import InProcessGrid

STUDY = Study.load(
    Path(__file__).parents[1] / "small.toml",
    (
        "aggregation.min_sites=3",
        "aggregation.round_deadline_s=0.5",
        "aggregation.spare_turns=2",
        "privacy.delta=1e-05",
        "privacy.epsilon=1",
    ),
)
Behave = Callable[[str, TurnRequest], TurnReply]


class ComingAndGoing(InProcessGrid):
    """A Grid from which some sites are away for a time, or shut out."""

    def __init__(
        self, app: ClientApp, names: tuple[str, ...], away: set[str], shut: set[str]
    ) -> None:
        super().__init__(app, names)
        self._away, self._shut = away, shut

    def site_names(self) -> dict[int, str]:
        names = super().site_names()
        return {n: name for n, name in names.items() if name not in self._shut}

    def get_node_ids(self) -> list[int]:
        return [n for n, name in self.site_names().items() if name not in self._away]


class Trial:
    """A study of three rounds with sites "a", "b" and "c".

    Attributes:
        away: Names of the sites that are not online; may change in mid-run.
        shut_out: And of those that the operator revoked.
    """

    def __init__(self) -> None:
        self.away: set[str] = set()
        self.shut_out: set[str] = set()

    names = ("a", "b", "c")
    plan = Plan(1.0, 5, 1e-3)
    study = STUDY

    def reply_with(
        self, request: TurnRequest, make: Callable[[str, tuple[int, ...]], np.ndarray]
    ) -> TurnReply:
        """A reply whose tensors are `make(name, shape)`."""
        model = unpack(request.model, registry.shapes(self.study))
        update = {n: make(n, w.shape) for n, w in model.items()}
        return TurnReply(
            Verdict.DONE,
            request.grant_id,
            request.turn_no,
            request.round_no,
            pack(update),
        )

    def honest(self, name: str, request: TurnRequest) -> TurnReply:
        """Every coordinate moves by the site's number, whatever the model."""
        step = {"a": 1.0, "b": 2.0, "c": 3.0}[name]
        return self.reply_with(
            request, lambda _name, shape: np.full(shape, step, np.float32)
        )

    def accept(self, name: str) -> Answer:
        """The answer of a site that takes part."""
        return Answer(Verdict.ACCEPTED, name, f"grant-{name}", 1000)

    def app(
        self,
        behave: Behave | None = None,
        answer: Callable[[str], Answer] | None = None,
        closed: Callable[[str], object] = str,
    ) -> ClientApp:
        """The sites' app; what is not given is what an honest site does."""
        app = ClientApp()
        behave, answer = behave or self.honest, answer or self.accept

        @app.query("offer")
        def offer(message: Message, context: Context) -> Message:
            name = str(context.node_config["site"])
            return Message(wire.encode_answer(answer(name)), reply_to=message)

        @app.query("close")
        def close(message: Message, context: Context) -> Message:
            name = str(context.node_config["site"])
            closed(name)
            done = Answer(Verdict.DONE, name)
            return Message(wire.encode_answer(done), reply_to=message)

        @app.train()
        def train(message: Message, context: Context) -> Message:
            name = str(context.node_config["site"])
            reply = behave(name, wire.decode_request(message.content))
            return Message(wire.encode_reply(reply), reply_to=message)

        return app

    def run(
        self, folder: Path, app: ClientApp | None = None, study: Study = STUDY
    ) -> Weights:
        """Begin the run in `folder`, or go on with it."""
        if (folder / "run.db").exists():
            store = RunStore.open(folder)
        else:
            facts = {"run_id": "r1", "plan": self.plan.facts()}
            store = RunStore.create(folder, study, facts)
        try:
            task = rounds.Run(study, self.plan, store, lambda _weights: {})
            grid = ComingAndGoing(
                app or self.app(), self.names, self.away, self.shut_out
            )
            return rounds.run(task, Sites(grid))
        finally:
            store.close()

    def with_quorum(self, min_sites: int) -> Study:
        """The study for fewer sites, or for more."""
        changes = {"min_sites": min_sites, "round_deadline_s": 0.5}
        aggregation = self.study.aggregation.model_copy(update=changes)
        return self.study.model_copy(update={"aggregation": aggregation})

    def moved_by(self, model: Weights, total: float) -> bool:
        """Whether every coordinate moved by `total` since the beginning."""
        start = registry.initial(self.study)
        return all(np.allclose(model[n], start[n] + total, atol=1e-5) for n in start)


@pytest.fixture
def trial() -> Trial:
    return Trial()
