"""Whose relayed lines are, and which of them go when there are too many."""

import asyncio

import pytest

from guilder_server import relays
from guilder_server.relays import Relays

HERE = ("127.0.0.1", 9443)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "MOST_UNKNOWN", 3)
    monkeypatch.setattr(relays, "MOST_OF_ONE", 2)


async def lines(
    found: Relays, num: int, listener: tuple[str, int] = HERE
) -> "list[asyncio.Task[bool]]":
    """Lines from the ports 1, 2, ...; each is carried by a task."""
    tasks: list[asyncio.Task[bool]] = []
    for port in range(1, num + 1):
        tasks.append(asyncio.create_task(asyncio.Event().wait()))
        found.enter(listener, port, tasks[-1])
    await settled()
    return tasks


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def cut(tasks: "list[asyncio.Task[bool]]") -> list[int]:
    return [port for port, task in enumerate(tasks, 1) if task.cancelled()]


def test_the_oldest_unknown_goes_and_members_stay() -> None:
    async def play() -> list[int]:
        found = Relays()
        first = await lines(found, 2)
        found.known(HERE, "ipv4:127.0.0.1:1", "alder")
        for port in (3, 4, 5, 6):
            first.append(asyncio.create_task(asyncio.Event().wait()))
            found.enter(HERE, port, first[-1])
        await settled()
        return cut(first)

    assert asyncio.run(play()) == [2, 3]


def test_of_one_members_lines_its_own_oldest_goes() -> None:
    async def play() -> list[int]:
        found = Relays()
        tasks = await lines(found, 3)
        for port in (1, 2, 3, 3):
            found.known(HERE, f"ipv4:127.0.0.1:{port}", "alder")
        await settled()
        return cut(tasks)

    assert asyncio.run(play()) == [1]


def test_members_and_listeners_have_places_of_their_own() -> None:
    async def play() -> list[int]:
        found = Relays()
        tasks = await lines(found, 2)
        others = await lines(found, 2, ("127.0.0.1", 9444))
        for port, name in ((1, "alder"), (2, "birch")):
            found.known(HERE, f"ipv4:127.0.0.1:{port}", name)
        found.known(HERE, "ipv4:127.0.0.1:99", "nobody's line")
        found.known(HERE, "unix:", "no port")
        found.leave(HERE, 1)
        await settled()
        return cut(tasks) + cut(others)

    assert asyncio.run(play()) == []
