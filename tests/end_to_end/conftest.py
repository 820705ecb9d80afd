"""An attacker: a site's real keys in hands that do not follow the protocol."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import fleet_pb2, message_pb2
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
)

from guilder_client import outbound
from guilder_client.calls import Calls
from guilder_shared import certificates, tls


class Attacker:
    """A site's real keys in hands that do not follow the protocol."""

    def __init__(self, keys: Path, port: int) -> None:
        self.url = f"https://127.0.0.1:{port}"
        self.tls = tls.client_context(keys)
        way = outbound.client(self.url, self.tls)
        key = certificates.load_tls_key(keys / "site.key")
        self.client = Calls(self.url, way, key)
        self.node_id = 0

    def activate(self) -> int:
        self.node_id = self.client.ActivateNode(
            fleet_pb2.ActivateNodeRequest(
                public_key=self.client.node_key, heartbeat_interval=15
            )
        ).node_id
        return self.node_id

    def pull(self) -> Message:
        node = FlowerNode(node_id=self.node_id)
        found = self.client.PullMessages(fleet_pb2.PullMessagesRequest(node=node))
        asked = message_from_proto(found.messages_list[0])
        asked.metadata.__dict__["_message_id"] = asked.metadata.message_id
        return asked

    def announce(self, reply: Message, num_bytes: int = 100_000) -> Any:
        self.client.upload_bytes = num_bytes
        reply.metadata.__dict__["_message_id"] = reply.object_id
        return self.client.PushMessages(
            fleet_pb2.PushMessagesRequest(
                node=FlowerNode(node_id=self.node_id),
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
            )
        )

    def upload(self, reply: Message, announced: Any) -> None:
        for object_id, item in get_all_nested_objects(reply).items():
            if object_id in announced.objects_to_push:
                self.send(reply, announced.session_id, object_id, item.deflate())

    def send(self, reply: Message, session: str, object_id: str, body: bytes) -> bool:
        answer = self.client.PushObject(
            message_pb2.PushObjectRequest(
                node=FlowerNode(node_id=self.node_id),
                run_id=reply.metadata.run_id,
                object_id=object_id,
                object_content=body,
                session_id=session,
            )
        )
        return bool(answer.stored)


@pytest.fixture
def attacker(consortium: Any) -> Callable[[str, int], Attacker]:
    return lambda name, port: Attacker(consortium.site(name), port)
