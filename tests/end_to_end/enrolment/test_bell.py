"""The line on which the server rings: an idle site asks nothing, and misses nothing."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from guilder_client import control
from guilder_client import node as nodes
from guilder_client.control import Bell
from guilder_client.node import Node, Pace
from guilder_client.settings import SiteFile
from guilder_server import enrol

Office = Any  # the fixture `office`; see conftest.py


class Sleeper:
    """A site that is online and sleeps as soon as it has nothing to do."""

    def __init__(self, office: Any, folder: Path) -> None:
        self.bell, self.stop = (
            Bell(SiteFile.load(folder / "site.toml")),
            threading.Event(),
        )
        app, self.num_asked = ClientApp(), 0
        url = f"https://127.0.0.1:{office.hub.port}"
        self.node = Node(
            url, folder, app, {}, sleep=self.bell.sleep, pace=Pace(pull_s=0.1)
        )
        pull = self.node._pull

        def counted() -> Any:
            self.num_asked += 1
            return pull()

        self.node._pull = counted  # type: ignore[method-assign]

        @app.train()
        def train(message: Message, _context: Any) -> Message:
            return Message(RecordDict(), reply_to=message)

        for work in (self.bell.listen, self.node.run_forever):
            threading.Thread(target=work, args=(self.stop,), daemon=True).start()

    @property
    def is_asleep(self) -> bool:
        return self.node._is_asleep and not self.bell._rung.is_set()


@pytest.fixture
def sleeper(
    office: Office, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> Iterator[Sleeper]:
    monkeypatch.setattr(nodes, "QUIET_S", 0.0)
    sleeper = Sleeper(office, office.join_filled(office.invite()))
    eventually(lambda: sleeper.is_asleep)
    yield sleeper
    sleeper.stop.set()


def ask(office: Office) -> Message:
    grid = office.hub.grid("run-1")
    (node_id,) = grid.get_node_ids()
    message = grid.create_message(RecordDict(), "train", node_id, "1")
    replies: list[Message] = grid.send_and_receive([message], timeout=20)
    return replies[0]


def test_a_sleeping_site_is_rung_and_answers(
    office: Office, sleeper: Sleeper, eventually: Callable[..., Any]
) -> None:
    assert ask(office).has_content()

    eventually(lambda: sleeper.is_asleep)
    assert ask(office).has_content()


def test_a_sleeping_site_asks_nothing(
    sleeper: Sleeper, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrol, "KEEP_ALIVE_S", 0.01)
    before = sleeper.num_asked

    threading.Event().wait(0.5)  # dozens of keep-alives, once the first is due

    assert sleeper.num_asked == before


def test_the_server_keeps_a_sleeping_site_online(
    office: Office, sleeper: Sleeper
) -> None:
    links = office.hub._links
    (node,) = [n for n in links.nodes.values() if links.is_online(n.node_id)]
    node.online_until = before = node.online_until - 25  # its last word is old

    office.hub._fleet.renew_leases()

    assert links.nodes[node.node_id].online_until > before


def test_a_site_whose_line_broke_asks_again(
    office: Office, sleeper: Sleeper, eventually: Callable[..., Any]
) -> None:
    before = sleeper.num_asked
    office.control.stop()

    eventually(lambda: sleeper.num_asked > before)

    assert ask(office).has_content()


def test_a_line_that_had_been_up_is_soon_up_again_however_often_it_breaks(
    sleeper: Sleeper, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retries that only ever grew would be hours apart at the end of this."""
    monkeypatch.setattr(control, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(control, "LONGEST_RETRY_S", 1e6)

    for _ in range(20):
        eventually(lambda: sleeper.bell.is_up)
        line = sleeper.bell._call
        line.cancel()
        eventually(lambda ended=line: sleeper.bell._call is not ended)

    eventually(lambda: sleeper.bell.is_up)


def test_a_site_that_is_shut_out_loses_its_line(
    office: Office, sleeper: Sleeper, eventually: Callable[..., Any]
) -> None:
    with office.admin() as admin:
        admin.decide("bank-a", "revoke")

    eventually(lambda: not sleeper.bell._is_up)
    assert sleeper.bell.sleep(threading.Event()) is False


def test_a_site_may_not_fill_the_server_with_lines(
    office: Office, eventually: Callable[..., Any]
) -> None:
    folder = office.join_filled(office.invite())
    bells = [Bell(SiteFile.load(folder / "site.toml")) for _ in range(6)]
    ended: list[Any] = []
    for bell in bells:
        listen = threading.Thread(
            target=lambda line=bell: ended.append(line._follow()), daemon=True
        )
        listen.start()

    eventually(lambda: len(ended) == 2)
    eventually(lambda: sum(bell.is_up for bell in bells) == enrol.MOST_LINES)

    assert {code.name for code in ended} == {"ABORTED"}
    for bell in bells:
        bell._call.cancel()
