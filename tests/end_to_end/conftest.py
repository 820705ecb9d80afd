"""An attacker with a site's real keys, and a line that delays, loses and cuts."""

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
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

PIECE_BYTES = 1 << 14  # of what passes a bad line
STALL_S = 2.0  # a line that says nothing more is cut after this


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


class FaultProxy:
    """Relays TCP from a port of its own to another one, badly.

    It sees TLS records, so nothing it does can be mistaken for an answer: a spoilt or
    doubled piece ends the connection, a lost one leaves it half open until somebody's
    patience ends.

    Args:
        target: A port of loopback.
        seed: Of the faults.
        chances: Fault -> chance per piece: cut, drop, delay, duplicate, corrupt,
            throttle.
        up: After how many bytes to the target a connection is cut, one after the other.
        down: And after how many from it.
    """

    def __init__(
        self,
        target: int,
        seed: int = 0,
        chances: dict[str, float] | None = None,
        *,
        up: Iterator[int] | None = None,
        down: Iterator[int] | None = None,
    ) -> None:
        self._target, self._chances = target, chances or {}
        self._random = random.Random(seed)
        self._cuts = {"up": up, "down": down}
        self._next = {way: next(cuts) for way, cuts in self._cuts.items() if cuts}
        self.counts: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()  # bytes, by direction
        self.heard = defaultdict[str, list[float]](list)  # when, by direction
        self.reached: list[float] = []  # when a connection came to the target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._relay, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.counts["connections"] += 1
        try:
            inner = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self.reached.append(time.monotonic())
        pumps = [
            asyncio.ensure_future(self._pump("up", reader, inner[1])),
            asyncio.ensure_future(self._pump("down", inner[0], writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        writer.transport.abort()
        inner[1].transport.abort()

    async def _pump(
        self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        num_bytes = 0
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                num_bytes += len(piece)
                self.passed[way] += len(piece)
                self.heard[way].append(time.monotonic())
                fault = self._fault()
                if num_bytes > self._next.get(way, num_bytes):
                    self._next[way] = next(self._cuts[way] or iter(()))
                    fault = "cut"
                if fault is None:
                    writer.write(piece)
                    await writer.drain()
                    continue
                self.counts[fault] += 1
                if await self._harm(fault, piece, writer):
                    return

    def _fault(self) -> str | None:
        drawn = self._random.random()
        for fault, chance in self._chances.items():
            drawn -= chance
            if drawn < 0:
                return fault
        return None

    async def _harm(
        self, fault: str, piece: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        """Let a piece pass badly; returns whether the line ends with it."""
        if fault == "cut":
            return True
        if fault == "drop":
            await asyncio.sleep(STALL_S)
            return True
        if fault == "delay":
            await asyncio.sleep(0.05 * self._random.random())
        elif fault == "duplicate":
            writer.write(piece)
        elif fault == "corrupt":
            place = self._random.randrange(len(piece))
            flipped = piece[place] ^ 1 << self._random.randrange(8)
            piece = piece[:place] + bytes([flipped]) + piece[place + 1 :]
        elif fault == "throttle":
            step = len(piece) // 16 + 1
            for start in range(0, len(piece) - step, step):
                writer.write(piece[start : start + step])
                await writer.drain()
                await asyncio.sleep(0.002)
            piece = piece[(len(piece) - 1) // step * step :]
        writer.write(piece)
        await writer.drain()
        return False


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def line() -> type[FaultProxy]:
    """Lines that are bad by chance, or cut after so many bytes."""
    return FaultProxy


@pytest.fixture
def refused() -> Callable[[str], contextlib.AbstractContextManager[None]]:
    """Expects that the server refuses a request, with this id in its answer."""

    @contextlib.contextmanager
    def expect(error_id: str) -> Iterator[None]:
        with pytest.raises(httpx.HTTPStatusError) as caught:
            yield
        assert caught.value.response.text.split(" ")[0] == error_id

    return expect
