"""Flower's Fleet service inside our process, and a Grid for each run.

Link state is in memory only: after a restart the open round is asked again. This
module knows no study and decodes no update.
"""

import logging
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager

from flwr.app import ArrayRecord, Error, Message, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.run import Run

from guilder_server.edge import Edge
from guilder_server.fleet import MIB, Fleet
from guilder_server.links import NOT_ONLINE, Fate, Links
from guilder_server.memory import give_back_large_pieces
from guilder_server.relays import Relays
from guilder_server.uploads import UploadGate
from guilder_shared.pieces import Cut, opened

log = logging.getLogger("guilder.hub")
logging.getLogger("flwr").setLevel(logging.ERROR)

LEASE_EVERY_S = 5  # a lease is 30 s long
AWAY = ErrorCode.NODE_UNAVAILABLE  # error code of a reply: the site is not there
LOST = ErrorCode.MESSAGE_UNAVAILABLE  # the site has the message no more: ask again
MALFORMED = ErrorCode.CLIENT_APP_CRASHED  # what came cannot be read


class Hub:
    """Serves the sites of a roster and gives runs a Grid to reach them.

    Args:
        address: Host and port; port 0 takes a free one, read it from `port`.
        tls: From `tls.server_context`.
        sites: Each site's node key (PEM), by name; from `certificates.roster`.
        upload_budget_bytes: Replies that fit into this together may come side by
            side; a larger one comes alone.
        largest_upload_bytes: No reply may be larger.
        remembered: What the server says of a site's ledger; see `Heads.word`.
        heard: Is told each time a site is heard of; see `Sightings.note`.

    Raises:
        NetworkError: The port is taken (GLD-N001) or cannot be had (GLD-N002).
    """

    def __init__(
        self,
        address: tuple[str, int],
        tls: ssl.SSLContext,
        sites: Mapping[str, bytes],
        *,
        upload_budget_bytes: int = 32 * MIB,
        largest_upload_bytes: int = 4096 * MIB,
        remembered: Callable[[str], bytes] = lambda _site: b"{}",
        heard: Callable[[str], None] = lambda _site: None,
    ) -> None:
        self._gate = UploadGate(upload_budget_bytes, largest_upload_bytes)
        self._links = Links(self._gate)
        self._fleet = Fleet(self._links, self._gate, remembered, heard)
        self.relays = Relays()
        self._grids: dict[str, HubGrid] = {}
        self._seconds = 0
        for name, node_key in sites.items():
            self.admit(name, node_key)
        self._edge = Edge(address, tls, self._fleet, self._each_second)
        self.port = self._edge.port

    def start(self, elsewhere: Mapping[bytes, tuple[str, int]] | None = None) -> None:
        """Begin to listen; returns when sites can connect.

        Args:
            elsewhere: Other listeners that share this hub's port; see `Front`.
        """
        give_back_large_pieces()
        self._edge.start(elsewhere or {}, self.relays)

    def stop(self) -> None:
        """Cut every connection; what was open is forgotten."""
        self._fleet.close()
        self._edge.stop()

    def admit(self, name: str, node_key: bytes) -> None:
        """Let a site in, from now on.

        Raises:
            EnrolmentError: The name or the key is there already (GLD-E010).
        """
        self._fleet.admit(name, node_key)

    def revoke(self, name: str) -> None:
        """Shut a site out at once: its connections are cut, its messages away."""
        self._edge.shut_out(self._fleet.expel(name))

    def attended(
        self, name: str, ring: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Keep a site online while it listens elsewhere; `ring` when it is wanted."""
        return self._fleet.attended(name, ring)

    def online(self) -> set[str]:
        """Names of the sites that are there now."""
        names = self._fleet.names()
        return {
            name for node_id, name in names.items() if self._links.is_online(node_id)
        }

    def site_names(self) -> dict[int, str]:
        """Name every site of the roster, online or not, by Flower's node id."""
        return self._fleet.names()

    def grid(self, run_id: str) -> "HubGrid":
        """Open a run, or find it open: the same text gives the same Grid."""
        if run_id not in self._grids:
            number = self._links.create_run(
                "guilder/study", "1", "", {}, NOOP_FEDERATION_ID, None,
                NOOP_FLWR_AID, TaskType.SERVER_APP,
            )  # fmt: skip
            run = self._links.get_run_info(run_ids=[number])[0]
            task_id = run.primary_task_id or 0
            self._links.claim_task(task_id)
            self._links.activate_task(task_id)
            self._grids[run_id] = HubGrid(self._fleet, self._links, self._gate, run)
        return self._grids[run_id]

    def awaited(self, run_id: str) -> dict[str, str]:
        """Which sites an open run waits for, and why; empty for one that is not open.

        A site that is not online is named too: the run may wait for it to come.
        """
        grid = self._grids.get(run_id)
        if grid is None:
            return {}
        names = self._fleet.names()
        found = {
            name: NOT_ONLINE
            for node_id, name in names.items()
            if not self._links.is_online(node_id)
        }
        for node_id, why in grid.awaited():
            if why and node_id in names:
                found[names[node_id]] = why
        return found

    def close_run(self, run_id: str) -> None:
        """End a run: its open messages and replies are forgotten.

        Nothing happens if it is not open.
        """
        grid = self._grids.pop(run_id, None)
        if grid is None:
            return
        grid.give_back()
        for message_id in self._links.get_message_ids_from_run_id(grid.run.run_id):
            self._links.drop(message_id)
        self._links.stop_run(grid.run.run_id)

    def _each_second(self) -> None:
        self._seconds += 1
        if self._seconds % LEASE_EVERY_S == 0:
            self._fleet.renew_leases()
        for reply_id in self._gate.stalled():
            self._links.lose_reply(reply_id)
            self._gate.give_way(reply_id)


class HubGrid(Grid):
    """One run's view of the sites that are online.

    A reply that is an error has one of three codes. AWAY: the site is not there.
    LOST: the site is there and has not the message (it was restarted, its upload
    broke off, the message ran out): push it again. MALFORMED: it sent something
    that cannot be read. `metadata.src_node_id` names the site in all three.
    """

    def __init__(self, fleet: Fleet, links: Links, gate: UploadGate, run: Run) -> None:
        self._fleet, self._links, self._gate, self._run = fleet, links, gate, run
        self._asked: dict[str, Message] = {}  # without content
        self._most: dict[str, int] = {}  # bytes of arrays in its reply
        self._given: list[str] = []  # replies that are being folded
        self._broken: list[str] = []  # of which pieces are kept

    def set_run(self, run: Run) -> None:
        """Refuse: a Grid belongs to the run it was made for."""
        raise NotImplementedError("a HubGrid is made for one run")

    @property
    def run(self) -> Run:
        """Flower's record of the run; its number changes with every start."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message to one site; `ttl` is the round's deadline plus 60 s."""
        metadata = Metadata(
            run_id=self._run.run_id,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=dst_node_id,
            reply_to_message_id="",
            group_id=group_id,
            created_at=now().timestamp(),
            ttl=ttl if ttl is not None else 660.0,
            message_type=message_type,
            src_task_id=self._run.primary_task_id,
        )
        return make_message(metadata, content=content)

    def get_node_ids(self) -> Iterable[int]:
        """List the sites that are online."""
        return sorted(self._links.get_nodes(self._run.run_id))

    def get_nodes(self) -> Iterable[NodeInfo]:
        """List the sites that are online; `name` is the certificate's."""
        return self._links.get_node_info(node_ids=list(self.get_node_ids()))

    def site_names(self) -> dict[int, str]:
        """Name every site of the roster, online or not, by node id."""
        return self._fleet.names()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Put messages out for their sites, who fetch them at once.

        Objects that messages share, such as the model, are kept once. A message to
        a site that is not there is answered AWAY.
        """
        pushed = []
        with no_object_id_recompute():
            for message in messages:
                message_id = message.object_id
                message.metadata.__dict__["_message_id"] = message_id
                self._asked[message_id] = remove_content_from_message(message)
                self._most[message_id] = MIB + _num_bytes(message)
                self._store(message)
                pushed.append(message_id)
        self._fleet.wake(self._asked[m].metadata.dst_node_id for m in pushed)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Fetch what has come in for these messages; each answer is given once.

        A reply's memory belongs to the caller afterwards: fold it and let it go. Its
        room is given back at the next call, so that no second one lies beside it.
        """
        replies = []
        while self._given:
            self._gate.leave(self._given.pop())
        for message_id in message_ids:
            asked = self._asked.get(message_id)
            fate = self._links.fate(message_id) if asked else Fate.WAITING
            if asked is None or fate is Fate.WAITING:
                continue
            del self._asked[message_id]
            most_bytes = self._most.pop(message_id)
            if fate is Fate.ANSWERED:
                replies.append(self._open(asked, message_id, most_bytes))
                continue
            away = not self._links.is_online(asked.metadata.dst_node_id)
            if kept := self._links.drop(message_id, keep=True):
                self._broken.append(kept)
            replies.append(_error(asked, AWAY if away else LOST))
        return replies

    def give_back(self) -> None:
        """Give back the room of every reply that was given, and of what is kept."""
        for reply_id in (*self._given, *self._broken):
            self._gate.leave(reply_id)
        self._given, self._broken = [], []

    def awaited(self) -> list[tuple[int, str]]:
        """Node id and reason of every message without a whole answer."""
        return [
            (asked.metadata.dst_node_id, self._links.awaited(message_id))
            for message_id, asked in list(self._asked.items())
        ]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Push messages and gather their answers until all came or time is up."""
        open_ids = set(self.push_messages(messages))
        end = time.monotonic() + timeout if timeout is not None else float("inf")
        replies: list[Message] = []
        while open_ids and time.monotonic() < end:
            came = self.pull_messages(open_ids)
            open_ids -= {reply.metadata.reply_to_message_id for reply in came}
            replies += came
            if not came:
                time.sleep(0.002)
        return replies

    def _store(self, message: Message) -> None:
        links, run_id = self._links, self._run.run_id
        session = links.start_session(run_id)
        stored, wanted = links.store_message_and_object_tree(
            remove_content_from_message(message), get_object_tree(message), session
        )
        if not stored:
            return  # the site has not come online since our start: see `pull_messages`
        objects = get_all_nested_objects(message)
        for object_id in wanted:
            found = objects[object_id]
            content = found.piece if isinstance(found, Cut) else found.deflate()
            links.store_object(run_id, session, object_id, content)

    def _open(self, asked: Message, message_id: str, most_bytes: int) -> Message:
        metadata, contents = self._links.take(message_id)
        self._given.append(metadata.message_id)
        try:
            reply = opened(metadata.message_id, contents, most_bytes)
            # What the object says of its sender is not believed: the announced
            # metadata is what was checked.
            error = reply.error if reply.has_error() else None
            content = reply.content if reply.has_content() else None
            return make_message(metadata, content=content, error=error)
        except Exception as error:  # a site may send anything
            log.warning("a reply cannot be read: %s", type(error).__name__)
            return _error(asked, MALFORMED)


def _num_bytes(message: Message) -> int:
    """How long the arrays of a message are: no reply need be longer."""
    return sum(
        len(array.data)
        for record in message.content.values()
        if isinstance(record, ArrayRecord)
        for array in record.values()
    )


def _error(asked: Message, code: int) -> Message:
    return Message(Error(code=code, reason=""), reply_to=asked)
