"""A Flower Grid inside one process: the same apps, no sockets, no polling.

A message runs when its reply is pulled, one at a time and in the order pushed, so a
simulation of any size holds one reply. Nothing here trains or decides.
"""

from collections.abc import Iterable
from typing import Final

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE: Final = 1
FIRST_NODE: Final = 2
APP_FAILED: Final = 3


class InProcessGrid(Grid):
    """Calls one ClientApp for every simulated site; node ids are stable.

    Args:
        client_app: The same object a deployed client calls.
        names: The sites, in node order; the app finds a site by `site` in its
            node configuration.
    """

    def __init__(self, client_app: ClientApp, names: Iterable[str]) -> None:
        TaskIdentity.task_id = 1
        TaskIdentity.run_id = 1
        TaskIdentity.node_id = SERVER_NODE
        self._run = Run.create_empty(run_id=1)
        self._app = client_app
        self._contexts = {
            node_id: Context(1, node_id, {"site": name}, RecordDict(), {})
            for node_id, name in enumerate(names, FIRST_NODE)
        }
        self._pending: dict[str, Message] = {}
        self._pushed = 0

    def site_names(self) -> dict[int, str]:
        """Node id → site name."""
        return {n: str(c.node_config["site"]) for n, c in self._contexts.items()}

    def set_run(self, run: Run) -> None:
        """Flower's interface; the run is fixed here."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to one site; records are copied one level, arrays are shared."""
        shallow = RecordDict(dict(content.items()))
        return Message(shallow, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """All sites; simulated sites are always online."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages; they run when pulled."""
        return [self._queue(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Run the oldest of the named messages and return its reply."""
        wanted = set(message_ids)
        for message_id in self._pending:
            if message_id in wanted:
                return [self._call(self._pending.pop(message_id))]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Run all messages in order; the time-out never passes here."""
        ids = self.push_messages(messages)
        return [self._call(self._pending.pop(message_id)) for message_id in ids]

    def _queue(self, message: Message) -> str:
        self._pushed += 1
        message_id = f"m{self._pushed}"
        message.metadata.__dict__["_message_id"] = message_id
        self._pending[message_id] = message
        return message_id

    def _call(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            reply = self._app(message, context)
        except Exception as error:  # Flower's contract: an error reply, not a crash
            reply = Message(Error(APP_FAILED, repr(error)), reply_to=message)
        self._pushed += 1
        reply.metadata.__dict__["_message_id"] = f"m{self._pushed}"
        return reply
