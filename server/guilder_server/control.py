"""The operator's channel: submit a study, watch, list, resume and stop its run.

gRPC over mutual TLS; only a certificate with the role operator is heard. Errors of
Guilder cross it whole, so that both ends exit with the same code. It decides nothing
about a study and never meets a site.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol
from urllib.parse import urlsplit

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its causes are told by diagnosis.py
import grpc

from guilder_server.door import Caller, Door
from guilder_server.enrol import (
    STRANGER_OPTIONS,
    Admins,
    Attended,
    Desk,
    Enrolment,
    Membership,
    abort,
)
from guilder_server.register import Register
from guilder_server.settings import ServerFile, ServerKeys
from guilder_shared import tls, tunnel
from guilder_shared.errors import NetworkError
from guilder_shared.identity import read_private
from guilder_shared.invitation import JOIN_NAME
from guilder_shared.proto import control_pb2 as messages
from guilder_shared.proto import control_pb2_grpc

stubs: Any = control_pb2_grpc  # generated without types
log = logging.getLogger(__name__)

Awaited = Callable[[str], dict[str, str]]
Met = Callable[[tuple[str, int], str, str], None]
SILENCE_S = 3.0  # without an event, then a watcher is told who is awaited
MOST_WATCHERS = 16
MOST_CALLS = 8  # threads beside the watchers'
SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second server shares the port in silence
    ("grpc.max_receive_message_length", 5 << 20),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
)


class RunHandler(Protocol):
    """What carries out the operator's words; see `service.Service`."""

    def submit(self, study: bytes, only: Sequence[str]) -> str:
        """Store and queue a study (canonical JSON); return its run id."""

    def watch(
        self, run_id: str, *, gone: threading.Event | None = None
    ) -> Iterator[dict[str, Any]]:
        """Events from the first on, until the run has ended or nobody listens."""

    def list(self) -> list[dict[str, Any]]:
        """All runs, newest first."""

    def resume(self, run_id: str) -> None:
        """Queue a failed or stopped run again."""

    def stop_run(self, run_id: str) -> None:
        """Stop a run."""


class ControlServer:
    """Serves the control channel, and strangers who join, from one thread.

    Args:
        settings: server.toml; behind a shared port it listens on loopback alone.
        handler: What carries out the operator's words; called from many threads.
        register: Who belongs here; None where sites are certificates in a folder.
        attended: Keeps a site online that listens here; see `Hub.attended`.
        awaited: Whom a run waits for, and why; see `Hub.awaited`.
        online: Names of the sites that are there.
        seen: When each site was last heard of; see `Sightings.all`.
        met: Is told whose a relayed connection is; see `Relays.known`.
    """

    def __init__(
        self,
        settings: ServerFile,
        handler: RunHandler,
        register: Register | None = None,
        attended: Attended = lambda _name, _ring: contextlib.nullcontext(),
        awaited: Awaited = lambda _run_id: {},
        online: Callable[[], set[str]] = set,
        seen: Callable[[], Mapping[str, float]] = dict,
        met: Met = lambda _listener, _peer, _name: None,
    ) -> None:
        self._online, self._seen, self._met = online, seen, met
        self._awaited = awaited
        self._settings = settings
        self._attended = attended
        self._handler = handler
        self._register = register
        self._ready: Future[None] = Future()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="control", daemon=True
        )
        self.port = 0
        self.enrolment_port = 0

    def start(self) -> None:
        """Listen; `port` and `enrolment_port` are known when this returns.

        Raises:
            NetworkError: A port is taken (GLD-N054).
            EnrolmentError: A key or certificate is missing, open to others or run out.
        """
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """End every watch and call, and give the ports back. Twice is harmless."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._stop()
        self._thread.join()

    def behind_the_public_port(self) -> dict[bytes, tuple[str, int]]:
        """Which of our listeners share the sites' port: offered or called name -> it.

        Strangers are told apart from members by the name that they call.
        """
        shared: dict[bytes, tuple[str, int]] = {}
        enrolment = self._settings.enrolment
        if self.enrolment_port and enrolment is not None and enrolment.port is None:
            shared[JOIN_NAME.encode()] = ("127.0.0.1", self.enrolment_port)
        if self._settings.server.one_port:
            shared[b"h2"] = ("127.0.0.1", self.port)
        return shared

    async def _serve(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        pool = ThreadPoolExecutor(MOST_CALLS, "control")
        servers: list[Any] = []
        try:
            servers += self._open(Desk(Door(self._register), pool, self._meet))
            for server in servers:
                await server.start()
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        await stop.wait()
        await asyncio.gather(*(server.stop(grace=1.0) for server in servers))
        pool.shutdown(wait=False)

    def _meet(self, peer: str, name: str) -> None:
        self._met(("127.0.0.1", self.port), peer, name)

    def _open(self, desk: Desk) -> list[Any]:
        """The servers, bound to their ports."""
        settings, keys = self._settings.server, self._settings.keys
        tls.server_context(
            tls.KeyFiles(keys.key, keys.certificate, keys.authority)
        )  # the same checks as the sites' port
        members = grpc.aio.server(options=SERVER_OPTIONS)
        stubs.add_ControlServicer_to_server(
            _Service(desk, self._handler, self._awaited), members
        )
        mutual = _credentials(keys, mutual=True)
        self.port = _bind(members, settings.control_address, mutual)
        stubs.add_MembershipServicer_to_server(
            Membership(desk, self._register, self._attended), members
        )
        enrolment = self._settings.enrolment
        if self._register is None or enrolment is None:
            return [members]
        strangers = grpc.aio.server(options=STRANGER_OPTIONS)
        one_sided = _credentials(keys, mutual=False)
        own = None if enrolment.port is None else (settings.host, enrolment.port)
        self.enrolment_port = _bind(strangers, own or ("127.0.0.1", 0), one_sided)
        public_port = self.enrolment_port if own else settings.port
        name = urlsplit(settings.url).hostname or ""
        control_port = settings.port if settings.one_port else self.port
        control_url = f"https://{tunnel.address(name, control_port)}"
        stubs.add_EnrolmentServicer_to_server(
            Enrolment(desk, self._register, settings.url, control_url), strangers
        )
        place = (name, public_port)
        admins = Admins(desk, self._register, place, self._online, self._seen)
        stubs.add_RegisterServicer_to_server(admins, members)
        return [members, strangers]


def _credentials(keys: ServerKeys, *, mutual: bool) -> Any:
    """What the server shows: looked at anew before a handshake, for it is renewed.

    Args:
        keys: Its files.
        mutual: Whether callers must show a certificate of our authority.
    """

    def read() -> Any:
        pair = (read_private(keys.key), keys.certificate.read_bytes())
        believed = keys.authority.read_bytes() if mutual else None
        return grpc.ssl_server_certificate_configuration([pair], believed)

    seen = keys.certificate.stat().st_mtime_ns

    def fresh() -> Any:
        nonlocal seen
        now = keys.certificate.stat().st_mtime_ns
        if now == seen:
            return None
        seen = now
        return read()

    return grpc.dynamic_ssl_server_credentials(
        read(), fresh, require_client_authentication=mutual
    )


def _bind(server: Any, place: tuple[str, int], credentials: Any) -> int:
    address = tunnel.address(*place)
    try:
        return int(server.add_secure_port(address, credentials))
    except RuntimeError:
        raise NetworkError(
            "GLD-N054",
            f"cannot listen on {address}: the port is taken, or not of this host",
            fix="End what holds it, or change the port in server.toml.",
        ) from None


class _Service:
    """Each call: who asks, the handler's answer, errors as data."""

    def __init__(self, desk: Desk, handler: RunHandler, awaited: Awaited) -> None:
        self._desk = desk
        self._awaited = awaited
        self._handler = handler
        self._watching = ThreadPoolExecutor(MOST_WATCHERS, "watch")
        self._num_watchers = 0

    async def Submit(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Store and queue a study."""

        def work(caller: Caller) -> Any:
            del caller
            run_id = self._handler.submit(request.study, list(request.sites))
            return messages.SubmitReply(run_id=run_id)

        digest = hashlib.sha256(request.study).hexdigest()  # the study is canonical
        return await self._desk.answer(context, "Submit", work, digest)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        """All runs."""
        del request

        def work(caller: Caller) -> Any:
            del caller
            runs = [json.dumps(run).encode() for run in self._handler.list()]
            return messages.ListReply(runs=runs)

        return await self._desk.answer(context, "List", work)

    async def Resume(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Queue a run again."""

        def work(caller: Caller) -> Any:
            del caller
            self._handler.resume(request.run_id)
            return messages.Done()

        return await self._desk.answer(context, "Resume", work, request.run_id)

    async def Stop(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Stop a run."""

        def work(caller: Caller) -> Any:
            del caller
            self._handler.stop_run(request.run_id)
            return messages.Done()

        return await self._desk.answer(context, "Stop", work, request.run_id)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Stream a run's events, from the one after those the watcher has seen."""
        caller = await self._desk.answer(context, "Watch", lambda caller: caller)
        if self._num_watchers >= MOST_WATCHERS:
            await abort(context, _too_many())
        self._num_watchers += 1
        gone = threading.Event()
        try:
            with self._desk.door.holding(caller, gone.set):
                async for event in self._events(request, gone):
                    yield event
                self._desk.door.let_in(context.auth_context(), "Watch")
        except Exception as error:
            await abort(context, error)
        finally:
            gone.set()
            self._num_watchers -= 1

    async def _events(self, request: Any, gone: threading.Event) -> AsyncIterator[Any]:
        """What the handler tells, from a thread of its own; and who is awaited."""
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

        def tell(event: dict[str, Any] | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(told.put_nowait, event)

        def follow() -> None:
            try:
                events = self._handler.watch(request.run_id, gone=gone)
                for event in itertools.islice(events, request.after, None):
                    tell(event)
            finally:
                tell(None)

        following = loop.run_in_executor(self._watching, follow)
        awaited: dict[str, str] = {}
        while True:
            try:
                event = await asyncio.wait_for(told.get(), SILENCE_S)
            except TimeoutError:
                if awaited != (now := self._awaited(request.run_id)):
                    awaited = now
                    yield messages.RunEvent(awaited=json.dumps(awaited).encode())
                continue
            if event is None:
                break
            yield messages.RunEvent(json=json.dumps(event).encode())
        await following  # raises what ended it


def _too_many() -> NetworkError:
    return NetworkError(
        "GLD-N057",
        f"{MOST_WATCHERS} watchers are there already",
        fix="End one, or ask `guilder run list` now and then.",
    )
