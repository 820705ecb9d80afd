"""One public port for all that a consortium's members call, told apart by ALPN.

Work (Flower's Fleet routes) and control (gRPC) have listeners of their own, each with
mutual TLS. A caller's first message is looked at, not taken: a connection that offers
`h2` goes byte for byte to the control listener, or to the one for joining if it calls
its name; any other is handed to the work listener as it came from the network. So TLS
stays between caller and listener, and work costs no copy. This module decides nothing
about who may call.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping

from guilder_server.hello import LARGEST_BYTES, NoHelloError, read_hello
from guilder_server.relays import Address, Relays
from guilder_shared import clocks

log = logging.getLogger("guilder.front")

HELLO_S = 10.0  # to send the first message; the handshake has as much again
LOOK_S = 0.02  # between two looks at a first message that comes in pieces
MOST_SILENT = 512  # callers without a first message; the oldest goes for a new one
PIECE_BYTES = 1 << 16
OUT_OF_FILES_S = 0.1
TELL_EVERY_S = 10.0  # strangers shall not fill the log

Serve = Callable[[socket.socket], Awaitable[None]]


class Front:
    """Accepts callers on one socket and brings each to the listener it asks for.

    Args:
        listening: Bound and listening.
        serve: Takes over a connection on which nothing was read yet.
        elsewhere: Called name, or else offered protocol -> address of its listener.
        relays: Counts what is relayed there.
    """

    def __init__(
        self,
        listening: socket.socket,
        serve: Serve,
        elsewhere: Mapping[bytes, Address],
        relays: Relays,
    ) -> None:
        self._listening, self._serve, self._elsewhere = listening, serve, elsewhere
        self._silent: dict[asyncio.Task[None], None] = {}  # oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._relays = relays
        self._told_s = float("-inf")

    async def run(self) -> None:
        """Accept until cancelled; then every relayed connection is cut."""
        self._listening.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    caller, _ = await loop.sock_accept(self._listening)
                except OSError as error:  # out of files; callers wait in the backlog
                    log.warning("cannot accept: %s", error.strerror)
                    await asyncio.sleep(OUT_OF_FILES_S)
                    continue
                caller.setblocking(False)
                self._meet(caller)
        finally:
            for task in self._tasks:
                task.cancel()

    def _meet(self, caller: socket.socket) -> None:
        if len(self._silent) >= MOST_SILENT:
            next(iter(self._silent)).cancel()
        task = asyncio.ensure_future(self._bring(caller))
        self._silent[task] = None
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._silent.pop(task, None)
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a caller was lost: %s", type(error).__name__)

    async def _bring(self, caller: socket.socket) -> None:
        handed_over = False
        try:
            address = await self._asked_for(caller)
            if address is None:
                handed_over = True
                await self._serve(caller)
            else:
                await self._relay(caller, address)
        except ssl.SSLCertVerificationError as error:  # the operator is told, not it
            self._tell(error)
        except (OSError, TimeoutError, NoHelloError):
            pass  # the caller is gone, or no member: it is told nothing
        finally:
            if not handed_over:
                caller.close()

    def _tell(self, error: ssl.SSLCertVerificationError) -> None:
        if time.monotonic() - self._told_s < TELL_EVERY_S:
            return
        self._told_s, why = time.monotonic(), error.verify_message
        if clocks.is_of_dates(error):
            why += f", by this machine's clock, which says {clocks.moment()}"
        log.warning("GLD-E014 a caller's certificate was refused: %s", why)

    async def _asked_for(self, caller: socket.socket) -> Address | None:
        """Whom the caller wants; None is the work listener. Nothing is taken off."""
        ends = time.monotonic() + HELLO_S
        while True:
            async with asyncio.timeout(ends - time.monotonic()):
                await _readable(caller)
            data = caller.recv(LARGEST_BYTES + 1, socket.MSG_PEEK)
            if not data:
                raise NoHelloError("closed before it said anything")
            if (hello := read_hello(data)) is not None:
                break
            await asyncio.sleep(LOOK_S)  # readable all the while: look now and then
        task = asyncio.current_task()
        assert task is not None, "runs as a task"
        self._silent.pop(task, None)
        asked = (hello.server_name, *hello.protocols)
        offered = (self._elsewhere.get(name) for name in asked)
        return next((found for found in offered if found is not None), None)

    async def _relay(self, caller: socket.socket, address: Address) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        task = asyncio.current_task()
        assert task is not None, "runs as a task"
        with socket.socket(family, socket.SOCK_STREAM) as inner:
            inner.setblocking(False)
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(inner, address)
            port = inner.getsockname()[1]
            self._relays.enter(address, port, task)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pump(caller, inner))
                    both.create_task(_pump(inner, caller))
            finally:
                self._relays.leave(address, port)


async def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy until the source ends; tell the sink. An error shuts both."""
    loop = asyncio.get_running_loop()
    try:
        while piece := await loop.sock_recv(source, PIECE_BYTES):
            await loop.sock_sendall(sink, piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


async def _readable(caller: socket.socket) -> None:
    """Return when there is something to read, or the caller is gone."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(caller, tell)
    try:
        await ready
    finally:
        loop.remove_reader(caller)
