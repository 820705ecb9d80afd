"""The two roles of `large_model.py`, each a process: a server, and a site.

    python large_model_roles.py server FOLDER STUDY ROUNDS
    python large_model_roles.py site FOLDER NAME PORT

The server is the product's own: hub, rounds, run store; only what people do is left
out. A site is the product's node; instead of training it sends numbers of the model's
shapes that were drawn once. The server samples its own memory and prints what it was.
"""

import itertools
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

SAMPLE_S = 0.01


class Memory:
    """The largest resident set of this process, sampled in a thread."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self.peak = self.now()
        threading.Thread(target=self._watch, daemon=True).start()

    def now(self) -> int:
        """Bytes at this moment."""
        return int(self._process.memory_info().rss)

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(SAMPLE_S)


def serve(folder: Path, study_file: Path, num_rounds: int) -> None:
    """Carry a study through, and print memory and times as one JSON object."""
    from guilder_server import rounds
    from guilder_server.grid import Sites
    from guilder_server.hub import Hub
    from guilder_server.runstore import RunStore
    from guilder_shared.certificates import roster
    from guilder_shared.messages import Plan
    from guilder_shared.models import registry
    from guilder_shared.study import Study
    from guilder_shared.tls import server_context

    study = Study.load(study_file, (f"training.rounds={num_rounds}",))
    plan = Plan(1.0, num_rounds + study.aggregation.spare_turns, 1e-3)
    keys = {n: s.node_key for n, s in roster(folder / "sites").items()}
    hub = Hub(("127.0.0.1", 0), server_context(folder), keys)
    hub.start()
    print(hub.port, flush=True)
    facts = {"run_id": "large", "plan": plan.facts()}
    store = RunStore.create(folder / "run", study, facts)
    grid = hub.grid("large")
    while len(list(grid.get_node_ids())) < study.aggregation.min_sites:
        time.sleep(0.05)
    memory = Memory()
    idle, ends = memory.now(), [time.monotonic()]
    store.notify = lambda event: (
        ends.append(time.monotonic()) if event["kind"] == "round" else None
    )
    rounds.run(rounds.Run(study, plan, store, lambda _weights: {}), Sites(grid))
    size = 4 * sum(int(np.prod(s)) for s in registry.shapes(study).values())
    told = {
        "model_bytes": size,
        "idle_bytes": idle,
        "peak_bytes": memory.peak,
        "rounds_s": [b - a for a, b in itertools.pairwise(ends)],
    }
    print(json.dumps(told), flush=True)
    hub.stop()


def take_part(folder: Path, name: str, port: int) -> None:
    """Answer every turn with the same numbers; ends when it is killed."""
    import psutil
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp

    from guilder_client.node import Node
    from guilder_shared import tensors, wire
    from guilder_shared.messages import Answer, TurnReply, Verdict

    app = ClientApp()
    sent: list[bytes] = []

    @app.query("offer")
    def offer(message: Message, context: Context) -> Message:
        answer = Answer(Verdict.ACCEPTED, name, f"grant-{name}", 1000)
        return Message(wire.encode_answer(answer), reply_to=message)

    @app.query("close")
    def close(message: Message, context: Context) -> Message:
        done = wire.encode_answer(Answer(Verdict.DONE, name))
        return Message(done, reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        asked = wire.decode_request(message.content)
        if not sent:
            random = np.random.default_rng(port + len(name) + ord(name[-1]))
            drawn = {
                tensor: random.normal(0, 0.01, values.shape).astype("f4")
                for tensor, values in tensors.views(asked.model).items()
            }
            sent.append(b"".join(tensors.parts(drawn)))
        about = (asked.grant_id, asked.turn_no, asked.round_no)
        reply = TurnReply(Verdict.DONE, *about, sent[0])
        return Message(wire.encode_reply(reply), reply_to=message)

    def online() -> None:
        print(psutil.Process().memory_info().rss, flush=True)

    url, config = f"https://127.0.0.1:{port}", {"site": name}
    node = Node(url, folder, app, config, on_online=online)
    node.run_forever(threading.Event())


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        take_part(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
