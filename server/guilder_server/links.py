"""Flower's link state as the hub needs it: in memory, with leases that can be retaken.

Flower never delivers a message twice and hands a reply out when it is announced.
Here a message is lost as soon as its site shows empty hands, and a reply counts
when all of it has come. This module opens no socket; nothing in it is durable.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from flwr.app import Message, Metadata
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.constant import NodeStatus
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager

from guilder_server.objects import Objects
from guilder_server.uploads import UploadGate
from guilder_shared.pieces import Content, Contents, Landing, Piece

NOT_ONLINE = "is not online"


class Fate(Enum):
    """What has become of a message."""

    WAITING = "waiting"  # not answered yet, and its site is there
    ANSWERED = "answered"  # the whole reply is here
    LOST = "lost"  # its site has it no more, or it ran out: ask again
    AWAY = "away"  # its site is not there


@dataclass(frozen=True)
class Rest:
    """What came of a reply that broke off: pieces, and where they and others land."""

    landing: Landing
    pieces: Contents


class Links(InMemoryLinkState):
    """Nodes, messages and objects of the runs that are open now.

    One lock, `self.lock`, guards leases and replies together: nobody can look for
    a reply between a lease's end and its renewal.
    """

    def __init__(self, gate: UploadGate) -> None:
        super().__init__(NoOpFederationManager(), Objects(verify=True))
        self._gate = gate
        self._lost: set[str] = set()
        self._trees: dict[str, tuple[str, ...]] = {}  # by root; children come first
        self.landings: dict[str, Landing] = {}  # where a reply's pieces are put

    def activate_node(self, node_id: int, heartbeat_interval: float) -> bool:
        """Begin a lease anew, also where one is running: its old holder is gone."""
        with self.lock:
            self.show_empty_hands(node_id)
            super().deactivate_node(node_id)
            return super().activate_node(node_id, heartbeat_interval)

    def end_node(self, node_id: int) -> None:
        """Forget a node for good; what it was asked counts as lost."""
        with self.lock:
            self.show_empty_hands(node_id)
            node = self.nodes[node_id]
            node.status = NodeStatus.UNREGISTERED
            node.online_until = now().timestamp()
            # A site that is let in again has the same key: it is a new node
            self.node_public_key_to_node_id.pop(node.public_key, None)

    def is_online(self, node_id: int) -> bool:
        """Say whether a node's lease runs."""
        found = self.get_node_info(node_ids=[node_id], statuses=[NodeStatus.ONLINE])
        return bool(found)

    def show_empty_hands(self, node_id: int) -> None:
        """Count as lost what a node was given and has not answered in full.

        A node works on one message at a time and asks for the next when it is
        done: a node that asks, or begins anew, holds nothing.
        """
        with self.lock:
            for message_id, message in self.message_ins_store.items():
                if (
                    message.metadata.dst_node_id == node_id
                    and message.metadata.delivered_at
                    and not self._is_answered(message_id)
                ):
                    self._lost.add(message_id)

    def lose_reply(self, reply_id: str) -> None:
        """Count the message as lost whose reply was announced and never came."""
        with self.lock:
            if reply := self.message_res_store.get(reply_id):
                self._lost.add(reply.metadata.reply_to_message_id)

    def expects(self, reply: Metadata) -> bool:
        """Say whether a reply is wanted: of this node, for an open message."""
        with self.lock:
            asked = self.message_ins_store.get(reply.reply_to_message_id)
            earlier = self.message_ins_id_to_message_res_id.get(
                reply.reply_to_message_id
            )
            return (
                asked is not None
                and asked.metadata.run_id == reply.run_id
                and asked.metadata.dst_node_id == reply.src_node_id
                and reply.reply_to_message_id not in self._lost
                and earlier in {None, reply.message_id}
            )

    def fate(self, message_id: str) -> Fate:
        """Say what has become of a message that was pushed."""
        with self.lock:
            message = self.message_ins_store.get(message_id)
            if message is None or message_id in self._lost:
                return Fate.LOST
            if self._is_answered(message_id):
                return Fate.ANSWERED
            if message.metadata.created_at + message.metadata.ttl <= now().timestamp():
                return Fate.LOST
            online = self.is_online(message.metadata.dst_node_id)
            return Fate.WAITING if online else Fate.AWAY

    def awaited(self, message_id: str) -> str:
        """Why a message has no whole answer yet; empty if it has, or is asked anew."""
        with self.lock:
            fate = self.fate(message_id)
            if fate is Fate.AWAY:
                return NOT_ONLINE
            if fate is not Fate.WAITING:
                return ""
            if message_id in self.message_ins_id_to_message_res_id:
                return "sends its answer"
            if self.message_ins_store[message_id].metadata.delivered_at:
                return "works on it"
            return "has not fetched it yet"

    def take(self, message_id: str) -> tuple[Metadata, Contents]:
        """Hand over the reply to an answered message and forget both.

        Returns:
            The reply's metadata as it was announced and checked, and its objects'
            bytes by id; the reply itself is the object `metadata.message_id`.
        """
        with self.lock:
            reply_id = self.message_ins_id_to_message_res_id[message_id]
            metadata = self.message_res_store[reply_id].metadata
            contents: Contents = {
                object_id: self.object_store.get(object_id) or b""
                for object_id in self._trees[reply_id]
            }
            self.drop(message_id, leave=False)
        return metadata, contents

    def drop(
        self, message_id: str, *, leave: bool = True, keep: bool = False
    ) -> str | None:
        """Forget a message, its reply, and all objects that nobody else refers to.

        `leave` gives the reply's room back to the gate; who takes a reply does so
        when it is folded. `keep` leaves the pieces of a reply that broke off with the
        gate instead, for its sender to go on from.

        Returns:
            The reply whose pieces are kept; None if none are.
        """
        with self.lock:
            reply_id = self.message_ins_id_to_message_res_id.get(message_id)
            kept = self._keep(reply_id) if keep and reply_id else None
            self.delete_messages({message_id})
            self._lost.discard(message_id)
            for root in filter(None, (message_id, reply_id)):
                self.landings.pop(root, None)
                if session := self._object_push_session_by_root.get(root):
                    self._cleanup_push_session(session, cleanup_messages=False)
                for object_id in reversed(self._trees.pop(root, (root,))):
                    self.object_store.delete(object_id)
            if reply_id and leave and not kept:
                self._gate.leave(reply_id)
            return kept

    def _keep(self, reply_id: str) -> str | None:
        sender = self.nodes.get(self.message_res_store[reply_id].metadata.src_node_id)
        if sender is None or sender.status == NodeStatus.UNREGISTERED:
            return None
        found: list[tuple[str, Any]] = [
            (object_id, self.object_store.get(object_id))
            for object_id in self._trees[reply_id]
        ]
        pieces: Contents = {n: each for n, each in found if isinstance(each, Piece)}
        num_bytes = sum(map(len, pieces.values()))
        landing = self.landings.get(reply_id)
        if landing is None or not pieces:
            return None
        is_kept = self._gate.keep(reply_id, Rest(landing, pieces), num_bytes)
        return reply_id if is_kept else None

    def store_message_and_object_tree(
        self, message: Message, object_tree: ObjectTree, session_id: str
    ) -> tuple[bool, list[str]]:
        """Store a message or reply and note which objects are its own."""
        with self.lock:
            answer = super().store_message_and_object_tree(
                message, object_tree, session_id
            )
            if answer[0]:
                self._trees[object_tree.object_id] = object_ids(object_tree)
            return answer

    def is_whole(self, root_id: str) -> bool:
        """Say whether every object announced under a root has come."""
        with self._lock_object_push_sessions:
            session_id = self._object_push_session_by_root.get(root_id)
            session = self._object_push_sessions.get(session_id or "")
            return session is None or not session.pending_object_ids

    def session_of(self, root_id: str) -> str:
        """Name the upload session of a root; empty if it has none."""
        with self._lock_object_push_sessions:
            return self._object_push_session_by_root.get(root_id, "")

    def _cleanup_expired_task_tokens_locked(self) -> None:
        """Keep runs open: Flower would end one that is silent for 61 s.

        A run's work is done in this process; it ends when the process closes it,
        and a machine that was suspended goes on with it.
        """

    # Flower takes its session lock first and the message lock inside it here, and
    # the other way round elsewhere: always the message lock first.
    def store_object(self, *args: Any, **kwargs: Any) -> bool:
        """Store one object of an upload."""
        with self.lock:
            return super().store_object(*args, **kwargs)

    def get_object(self, run_id: int, object_id: str) -> Content | None:  # type: ignore[override]
        """Read one object, where it is stored."""
        with self.lock:
            return super().get_object(run_id, object_id)

    def size_of(self, object_id: str) -> int:
        """Bytes of an object; 0 while it is not there."""
        return len(self.object_store.get(object_id) or b"")

    def _is_answered(self, message_id: str) -> bool:
        reply_id = self.message_ins_id_to_message_res_id.get(message_id)
        return reply_id is not None and self.is_whole(reply_id)


def object_ids(tree: ObjectTree) -> tuple[str, ...]:
    """List the ids of all objects in a tree, children before their parents."""
    return tuple(node.object_id for node in iterate_object_tree(tree))
