"""The hub: leases, lost messages, uploads and memory, over real sockets and TLS."""

import datetime
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from guilder_server.hub import AWAY, LOST, MALFORMED
from guilder_shared.errors import EnrolmentError, NetworkError

pytestmark = pytest.mark.timeout(60)
MODEL = np.arange(1000, dtype=np.float32)


def content(values: Any = MODEL) -> RecordDict:
    return RecordDict({"model": ArrayRecord({"w": Array(values)})})


def echo(plus: float = 1.0, before: Callable[[], object] = lambda: None) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        before()
        values = message.content.array_records["model"]["w"].numpy() + plus
        return Message(content(values), reply_to=message)

    return app


def values_of(reply: Message) -> Any:
    return reply.content.array_records["model"]["w"].numpy()


def ask(grid: Any, node_ids: Any, values: Any = MODEL, ttl: float = 60.0) -> list[str]:
    shared = content(values)
    messages = [grid.create_message(shared, "train", n, "1", ttl) for n in node_ids]
    return list(grid.push_messages(messages))


def node_id_of(hub: Any, name: str) -> int:
    by_name: dict[str, int] = {n: i for i, n in hub.site_names().items()}
    return by_name[name]


def test_every_site_gets_the_message_and_every_reply_comes_back(
    consortium: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    for number, name in enumerate(consortium.names):
        consortium.node(name, hub.port, echo(plus=number))
    grid = hub.grid("run-1")
    eventually(lambda: len(list(grid.get_node_ids())) == 3)

    shared = content()
    replies = grid.send_and_receive(
        [grid.create_message(shared, "train", n, "1") for n in grid.get_node_ids()],
        timeout=20,
    )

    by_name = {
        hub.site_names()[r.metadata.src_node_id]: values_of(r)[0] for r in replies
    }
    assert by_name == {"alder": 0.0, "birch": 1.0, "cedar": 2.0}


def test_a_site_is_named_by_its_certificate_and_listed_only_when_online(
    consortium: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    assert list(grid.get_node_ids()) == []
    assert sorted(hub.site_names().values()) == ["alder", "birch", "cedar"]

    consortium.node("birch", hub.port, echo())
    eventually(lambda: list(grid.get_node_ids()))

    assert [node.name for node in grid.get_nodes()] == ["birch"]
    assert list(grid.get_node_ids()) == [node_id_of(hub, "birch")]


def test_the_same_run_is_the_same_grid_and_a_closed_run_is_forgotten(
    consortium: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    consortium.node("alder", hub.port, echo())
    eventually(lambda: list(grid.get_node_ids()))
    ask(grid, grid.get_node_ids())

    assert hub.grid("run-1") is grid
    hub.close_run("run-1")
    hub.close_run("run-1")

    assert hub.grid("run-1") is not grid
    assert len(hub._links.object_store) == 0


def test_nothing_stays_in_memory_after_a_round(
    consortium: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    for name in consortium.names:
        consortium.node(name, hub.port, echo(plus=1.0))  # all replies share objects
    grid = hub.grid("run-1")
    eventually(lambda: len(list(grid.get_node_ids())) == 3)

    shared = content()
    replies = grid.send_and_receive(
        [grid.create_message(shared, "train", n, "1") for n in grid.get_node_ids()],
        timeout=20,
    )

    assert [values_of(reply)[0] for reply in replies] == [1.0, 1.0, 1.0]
    links = hub._links
    assert (links.num_message_ins(), links.num_message_res()) == (0, 0)
    assert len(links.object_store) == 0


def test_a_message_to_a_site_that_never_came_is_answered_away(
    consortium: Any,
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")

    ids = ask(grid, [node_id_of(hub, "cedar")])
    replies = list(grid.pull_messages(ids))

    assert [reply.error.code for reply in replies] == [AWAY]
    assert replies[0].metadata.src_node_id == node_id_of(hub, "cedar")
    assert list(grid.pull_messages(ids)) == []  # each answer is given once


def test_an_expired_message_is_answered_lost_not_with_silence(
    consortium: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    consortium.node("alder", hub.port, echo(before=lambda: time.sleep(1.5)))
    eventually(lambda: list(grid.get_node_ids()))

    ids = ask(grid, grid.get_node_ids(), ttl=0.5)
    replies = eventually(lambda: list(grid.pull_messages(ids)))

    assert [reply.error.code for reply in replies] == [LOST]


def test_a_site_that_comes_back_in_mid_message_is_asked_again_at_once(
    consortium: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    taken, hung = threading.Event(), threading.Event()

    def hang() -> None:
        taken.set()
        hung.wait(60)

    first = consortium.node("alder", hub.port, echo(before=hang))
    eventually(lambda: list(grid.get_node_ids()))
    ids = ask(grid, grid.get_node_ids())
    assert taken.wait(60)
    first.set()
    assert list(grid.pull_messages(ids)) == []  # its lease runs: no false "away"

    consortium.node("alder", hub.port, echo())  # as after kill -9 and a restart
    lost = eventually(lambda: list(grid.pull_messages(ids)))
    again = ask(grid, grid.get_node_ids())
    replies = eventually(lambda: list(grid.pull_messages(again)))
    hung.set()

    assert [reply.error.code for reply in lost] == [LOST]
    assert [values_of(reply)[0] for reply in replies] == [1.0]


def test_a_late_reply_to_a_lost_message_changes_nothing(
    consortium: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    hung = threading.Event()
    consortium.node("alder", hub.port, echo(plus=66, before=lambda: hung.wait(60)))
    eventually(lambda: list(grid.get_node_ids()))
    ids = ask(grid, grid.get_node_ids())
    eventually(lambda: all(m.metadata.delivered_at for m in messages_of(hub)))

    hub._links.activate_node(node_id_of(hub, "alder"), 15.0)  # its lease is retaken
    lost = eventually(lambda: list(grid.pull_messages(ids)))
    hung.set()
    again = ask(grid, grid.get_node_ids())
    replies = eventually(lambda: list(grid.pull_messages(again)))

    assert [reply.error.code for reply in lost] == [LOST]
    assert [values_of(reply)[0] for reply in replies] == [66.0]
    assert list(grid.pull_messages(ids)) == []


def messages_of(hub: Any) -> list[Message]:
    return list(hub._links.message_ins_store.values())


def test_large_replies_are_uploaded_one_at_a_time(
    consortium: Any, eventually: Any
) -> None:
    hub = consortium.hub(upload_budget_bytes=1000)  # every reply is a large one
    for number, name in enumerate(consortium.names):
        consortium.node(name, hub.port, echo(plus=number))
    grid = hub.grid("run-1")
    eventually(lambda: len(list(grid.get_node_ids())) == 3)
    ids = ask(grid, grid.get_node_ids(), np.zeros(300_000, np.float32))
    eventually(lambda: hub._links.num_message_res() == 1)

    time.sleep(0.5)  # ten tries of the other two
    assert hub._links.num_message_res() == 1

    came: list[Message] = []
    while len(came) < 3:
        came += eventually(lambda: list(grid.pull_messages(ids)))
    assert sorted(values_of(reply)[0] for reply in came) == [0.0, 1.0, 2.0]


def test_a_revoked_site_is_cut_off_and_its_message_is_away(
    consortium: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    hung = threading.Event()
    consortium.node("alder", hub.port, echo(before=lambda: hung.wait(60)))
    eventually(lambda: list(grid.get_node_ids()))
    ids = ask(grid, grid.get_node_ids())

    hub.revoke("alder")
    replies = eventually(lambda: list(grid.pull_messages(ids)))
    hung.set()

    assert [reply.error.code for reply in replies] == [AWAY]
    assert list(grid.get_node_ids()) == []
    assert sorted(hub.site_names().values()) == ["birch", "cedar"]


def test_one_key_cannot_be_two_sites(consortium: Any) -> None:
    from guilder_shared.certificates import roster

    hub = consortium.hub()
    key = roster(consortium.folder / "server" / "sites")["alder"].node_key

    with pytest.raises(EnrolmentError, match="GLD-E010"):
        hub.admit("dogwood", key)


def test_a_port_in_use_is_an_error_that_names_it(consortium: Any) -> None:
    hub = consortium.hub()

    with pytest.raises(NetworkError, match=str(hub.port)) as caught:
        consortium.hub(port=hub.port)

    assert caught.value.error_id == "GLD-N001"


def test_an_address_of_another_machine_is_an_error(consortium: Any) -> None:
    from guilder_server.edge import _bind

    with pytest.raises(NetworkError) as caught:
        _bind(("192.0.2.1", 0))

    assert caught.value.error_id == "GLD-N002"


def test_a_hub_can_be_stopped_and_its_port_taken_again(consortium: Any) -> None:
    hub = consortium.hub()
    hub.stop()

    assert consortium.hub(port=hub.port).port == hub.port


def test_a_run_stays_open_however_long_its_server_is_silent(
    consortium: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    consortium.node("alder", hub.port, echo())
    eventually(lambda: list(grid.get_node_ids()))
    corestate: Any = import_module("flwr.supercore.corestate.in_memory_corestate")
    real = corestate.now
    later = datetime.timedelta(seconds=300)  # Flower ends a run after 61
    monkeypatch.setattr(corestate, "now", lambda: real() + later)

    ids = ask(grid, grid.get_node_ids())
    [reply] = eventually(lambda: list(grid.pull_messages(ids)))

    assert reply.has_content()


def test_a_site_that_leaves_in_order_is_away_at_once(
    consortium: Any, eventually: Any
) -> None:
    hub = consortium.hub()
    grid = hub.grid("run-1")
    stop = consortium.node("alder", hub.port, echo())
    eventually(lambda: list(grid.get_node_ids()))

    stop.set()

    eventually(lambda: list(grid.get_node_ids()) == [])


def test_a_failing_housekeeping_does_not_end_the_listener(
    consortium: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = consortium.hub()
    failed = threading.Event()

    def fail() -> list[str]:
        failed.set()
        raise RuntimeError

    monkeypatch.setattr(hub._gate, "stalled", fail)
    assert failed.wait(60)

    consortium.node("alder", hub.port, echo())

    assert eventually(lambda: list(hub.grid("run-1").get_node_ids()))


def test_who_is_awaited_is_told_with_the_reason(
    consortium: Any, eventually: Any
) -> None:
    hub, go = consortium.hub(), threading.Event()
    consortium.node("alder", hub.port, echo(before=lambda: go.wait(60)))
    consortium.node("birch", hub.port, echo())
    grid = hub.grid("run-1")
    eventually(lambda: len(grid.get_node_ids()) == 2)
    (asked,) = ask(grid, [node_id_of(hub, "alder")])

    eventually(lambda: hub.awaited("run-1").get("alder") == "works on it")
    assert hub.awaited("run-1")["cedar"] == "is not online"  # it never came
    assert "birch" not in hub.awaited("run-1")  # it is there and owes nothing
    go.set()
    eventually(lambda: grid.pull_messages([asked]))

    assert hub.awaited("run-1") == {"cedar": "is not online"}
    assert hub.awaited("run-2") == {}


def test_a_reply_longer_than_its_request_is_not_joined(
    consortium: Any, eventually: Any
) -> None:
    """Ten megabytes of one piece named a hundred times would be a gigabyte here."""
    hub = consortium.hub()
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(content(np.zeros(3_000_000, np.float32)), reply_to=message)

    consortium.node("alder", hub.port, app)
    grid = hub.grid("run-1")
    eventually(lambda: list(grid.get_node_ids()))

    ids = ask(grid, grid.get_node_ids())
    (reply,) = eventually(lambda: list(grid.pull_messages(ids)))

    assert reply.error.code == MALFORMED
