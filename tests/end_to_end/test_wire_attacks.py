"""Sites that lie: about who they are, what they answer, how much they send."""

from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2, message_pb2
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.supercore.inflatable.inflatable_object import get_object_id, get_object_tree

from guilder_server import uploads
from guilder_server.hub import LOST, MALFORMED
from guilder_shared import tls

pytestmark = pytest.mark.timeout(60)

FLEET = "/v1/fleet/"


def answer_to(asked: Message, value: float = 1.0) -> Message:
    weights = ArrayRecord({"w": Array(np.full(100, value, np.float32))})
    return Message(RecordDict({"model": weights}), reply_to=asked)


def ask(grid: Any, node_id: int, ttl: float = 60.0) -> list[str]:
    message = grid.create_message(RecordDict(), "train", node_id, "1", ttl)
    return list(grid.push_messages([message]))


@pytest.mark.attack("a site", "answering for another", "GLD-N120")
def test_a_site_cannot_answer_in_anothers_name(
    consortium: Any, attacker: Any, refused: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    birch = attacker("birch", hub.port)
    alder.activate()
    birch.activate()
    ids = ask(grid, alder.node_id)
    asked = alder.pull()

    with refused("GLD-N120"):
        birch.announce(answer_to(asked, 666.0))  # src_node_id is alder's

    assert list(grid.pull_messages(ids)) == []
    assert hub._links.num_message_res() == 0


@pytest.mark.attack("a site", "answering what another was asked", "GLD-N123")
def test_a_site_cannot_answer_a_message_to_another_in_its_own_name(
    consortium: Any, attacker: Any, refused: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    birch = attacker("birch", hub.port)
    alder.activate()
    birch.activate()
    ids = ask(grid, alder.node_id)
    reply = answer_to(alder.pull(), 666.0)
    reply.metadata.__dict__["_src_node_id"] = birch.node_id

    with refused("GLD-N123"):
        birch.announce(reply)

    assert list(grid.pull_messages(ids)) == []


@pytest.mark.attack("a site", "a replayed header of another site", "GLD-N120")
def test_a_replayed_node_header_is_worth_nothing_in_another_connection(
    consortium: Any, attacker: Any, refused: Any
) -> None:
    hub = consortium.hub()
    alder = attacker("alder", hub.port)
    seen: dict[str, str] = {}
    alder.client._client.event_hooks["request"] = [
        lambda request: seen.update(request.headers)
    ]
    alder.activate()
    body = fleet_pb2.PullMessagesRequest(node=FlowerNode(node_id=alder.node_id))
    headers = {name: seen[name] for name in seen if name.startswith("flwr-")}
    birch = tls.client_context(consortium.site("birch"))

    with httpx.Client(verify=birch, trust_env=False) as client, refused("GLD-N120"):
        client.post(
            f"{alder.url}{FLEET}pull-messages",
            content=body.SerializeToString(),
            headers=headers,
        ).raise_for_status()

    assert {"flwr-public-key", "flwr-signature", "flwr-timestamp"} <= set(headers)


@pytest.mark.attack("a site", "another site's node id", "GLD-N121")
def test_a_site_cannot_use_anothers_node_id(
    consortium: Any, attacker: Any, refused: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    birch = attacker("birch", hub.port)
    ask(grid, alder.activate())
    birch.activate()
    birch.node_id = alder.node_id

    with refused("GLD-N121"):
        birch.pull()

    assert alder.pull().metadata.dst_node_id == alder.node_id  # it is still there


@pytest.mark.attack("a site", "reading what another was sent", "GLD-N124")
def test_a_site_reads_only_what_was_sent_to_it(
    consortium: Any, attacker: Any, refused: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    birch = attacker("birch", hub.port)
    birch.activate()
    ids = ask(grid, alder.activate())
    request = {"node": FlowerNode(node_id=birch.node_id), "run_id": grid.run.run_id}

    with refused("GLD-N124"):
        birch.client.PullObject(
            message_pb2.PullObjectRequest(object_id=ids[0], **request)
        )
    with refused("GLD-N124"):
        birch.client.ConfirmMessageReceived(
            message_pb2.ConfirmMessageReceivedRequest(
                message_object_id=ids[0], **request
            )
        )

    assert ids[0] in hub._links.object_store


def test_what_a_replys_object_says_of_its_sender_is_not_believed(
    consortium: Any, attacker: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    birch = attacker("birch", hub.port)
    birch.activate()
    ids = ask(grid, alder.activate())
    asked = alder.pull()
    inner = answer_to(asked)
    inner.metadata.__dict__["_src_node_id"] = birch.node_id  # goes into the object
    inner.metadata.__dict__["_message_id"] = inner.object_id
    outer = message_to_proto(remove_content_from_message(inner))
    outer.metadata.src_node_id = alder.node_id  # what is checked
    announced = alder.client.PushMessages(
        fleet_pb2.PushMessagesRequest(
            node=FlowerNode(node_id=alder.node_id),
            messages_list=[outer],
            message_object_trees=[get_object_tree(inner)],
        )
    )
    alder.upload(inner, announced)

    [reply] = eventually(lambda: list(grid.pull_messages(ids)))

    assert reply.metadata.src_node_id == alder.node_id
    assert reply.metadata.reply_to_message_id == ids[0]


# Replies that are not what they seem


def test_a_reply_announced_by_a_site_that_dies_is_asked_for_again(
    consortium: Any, attacker: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    ids = ask(grid, alder.activate())
    alder.announce(answer_to(alder.pull()))

    assert list(grid.pull_messages(ids)) == []  # announced is not answered
    alder.activate()  # the restarted site

    [lost] = eventually(lambda: list(grid.pull_messages(ids)))
    assert lost.error.code == LOST
    assert hub._links.num_message_res() == 0


def test_an_upload_that_stands_still_is_given_up_and_lets_the_next_site_in(
    consortium: Any,
    attacker: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
    refused: Any,
) -> None:
    monkeypatch.setattr(uploads, "IDLE_S", 0.5)
    hub = consortium.hub(upload_budget_bytes=1)
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    birch = attacker("birch", hub.port)
    ids = ask(grid, alder.activate()) + ask(grid, birch.activate())
    alder.announce(answer_to(alder.pull()))
    reply = answer_to(birch.pull())
    with refused("another-site-is-sending"):
        birch.announce(reply)

    [lost] = eventually(lambda: list(grid.pull_messages(ids)))
    birch.upload(reply, birch.announce(reply))
    [answered] = eventually(lambda: list(grid.pull_messages(ids)))

    assert (lost.error.code, lost.metadata.src_node_id) == (LOST, alder.node_id)
    assert answered.metadata.src_node_id == birch.node_id


@pytest.mark.attack(
    "a site", "a replayed message: a second reply to one request", "GLD-N123"
)
def test_a_second_reply_to_the_same_message_is_refused_and_said_to_be(
    consortium: Any, attacker: Any, eventually: Any, refused: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    ids = ask(grid, alder.activate())
    asked = alder.pull()
    first = answer_to(asked, 1.0)
    alder.upload(first, alder.announce(first))

    with refused("GLD-N123"):
        alder.announce(answer_to(asked, 2.0))

    [reply] = eventually(lambda: list(grid.pull_messages(ids)))
    assert reply.content.array_records["model"]["w"].numpy()[0] == 1.0
    with refused("GLD-N123"):
        alder.announce(first)
    assert list(grid.pull_messages(ids)) == []


def test_a_reply_sent_twice_after_a_lost_answer_counts_once(
    consortium: Any, attacker: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    ids = ask(grid, alder.activate())
    reply = answer_to(alder.pull())
    alder.announce(reply)  # its answer never arrived
    announced = alder.announce(reply)
    alder.upload(reply, announced)

    came = eventually(lambda: list(grid.pull_messages(ids)))

    assert len(came) == 1
    assert came[0].has_content()


@pytest.mark.attack("a site", "sending more than it announced", "GLD-N122")
def test_a_site_that_sends_more_than_it_announced_is_cut_off(
    consortium: Any, attacker: Any, refused: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    ask(grid, alder.activate())
    reply = answer_to(alder.pull())
    announced = alder.announce(reply, num_bytes=100)
    wanted = announced.objects_to_push[0]

    with refused("GLD-N122"):
        alder.send(reply, announced.session_id, wanted, bytes(5 * 1024 * 1024))


def test_an_object_under_anothers_digest_is_not_stored(
    consortium: Any, attacker: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    ask(grid, alder.activate())
    reply = answer_to(alder.pull())
    announced = alder.announce(reply)
    wanted = announced.objects_to_push[0]

    assert not alder.send(reply, announced.session_id, wanted, b"something else")


def test_a_reply_that_cannot_be_read_is_an_error_reply_and_harms_nothing(
    consortium: Any, attacker: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    ids = ask(grid, alder.activate())
    reply = answer_to(alder.pull())
    junk = reply.deflate().split(b"\0")[0].rsplit(b" ", 1)[0] + b" 3\0abc"
    root = get_object_id(junk)
    reply.metadata.__dict__["_message_id"] = root
    announced = alder.client.PushMessages(
        fleet_pb2.PushMessagesRequest(
            node=FlowerNode(node_id=alder.node_id),
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[message_pb2.ObjectTree(object_id=root)],
        )
    )
    assert alder.send(reply, announced.session_id, root, junk)

    [broken] = eventually(lambda: list(grid.pull_messages(ids)))

    assert broken.error.code == MALFORMED
    assert broken.metadata.src_node_id == alder.node_id


def announce_tree(attacker: Any, reply: Message, tree: Any) -> Any:
    attacker.client.upload_bytes = 100_000
    reply.metadata.__dict__["_message_id"] = tree.object_id
    return attacker.client.PushMessages(
        fleet_pb2.PushMessagesRequest(
            node=FlowerNode(node_id=attacker.node_id),
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[tree],
        )
    )


def tree_of(root: str, *children: str) -> message_pb2.ObjectTree:
    leaves = [message_pb2.ObjectTree(object_id=child) for child in children]
    return message_pb2.ObjectTree(object_id=root, children=leaves)


@pytest.mark.attack("a site", "a reply of objects that cannot be", "GLD-N125")
@pytest.mark.attack("a site", "a reply of five thousand objects", "GLD-N122")
def test_an_announcement_of_objects_that_cannot_be_leaves_nothing_behind(
    consortium: Any, attacker: Any, refused: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    ids = ask(grid, alder.activate())
    reply = answer_to(alder.pull())
    num_objects = len(hub._links.object_store)

    with refused("GLD-N125"):
        announce_tree(alder, reply, tree_of("a" * 64, "b" * 64, "no digest"))
    with refused("GLD-N122"):
        many = (f"{number:064x}" for number in range(5000))
        announce_tree(alder, reply, tree_of("a" * 64, *many))

    assert list(grid.pull_messages(ids)) == []
    assert len(hub._links.object_store) == num_objects


def test_objects_hung_under_anothers_object_do_not_outlive_the_reply(
    consortium: Any, attacker: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    alder = attacker("alder", hub.port)
    ids = ask(grid, alder.activate())
    reply = answer_to(alder.pull())
    [known] = [o for o in hub._links.object_store.store if o != ids[0]]  # its content
    hidden = message_pb2.ObjectTree(
        object_id=known, children=[message_pb2.ObjectTree(object_id="b" * 64)]
    )
    tree = message_pb2.ObjectTree(object_id="a" * 64, children=[hidden])
    assert "b" * 64 in announce_tree(alder, reply, tree).objects_to_push

    alder.activate()  # gives up
    [lost] = list(grid.pull_messages(ids))

    assert lost.error.code == LOST
    assert len(hub._links.object_store) == 0
