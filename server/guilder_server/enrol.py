"""Joining, renewing, leaving and deciding who belongs, as gRPC services.

A stranger with an invitation is heard on a port of its own, where only the server shows
a certificate; all other calls come by mutual TLS. Calls are coroutines, so that a
caller who sends nothing holds no thread. What is decided is `register.py`'s.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its causes are told by diagnosis.py
import grpc

from guilder_server.door import Caller, Door
from guilder_server.members import Member
from guilder_server.register import Register
from guilder_shared.errors import (
    EnrolmentError,
    GuilderError,
    NetworkError,
    RunFailed,
)
from guilder_shared.invitation import short_code
from guilder_shared.proto import control_pb2 as messages
from guilder_shared.proto import control_pb2_grpc
from guilder_shared.telling import ERROR_KEY, pack

stubs: Any = control_pb2_grpc  # generated without types
log = logging.getLogger(__name__)

MOST_BYTES = 64 << 10  # of a request to join: a request for a certificate has 600
MOST_CONNECTIONS = 256  # of strangers, at a time
MOST_JOINS = 64
MOST_LINES = 4  # of one site: its own, and those of a client that was killed
KEEP_ALIVE_S = 20.0  # firewalls forget a silent line after 30 s and more
# A stranger must shake hands within 10 s and is cut off after 30, whatever it does.
STRANGER_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_metadata_size", 8 << 10),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 20_000),
    ("grpc.max_connection_age_ms", 30_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
    ("grpc.max_concurrent_streams", 4),
    ("grpc.max_allowed_incoming_connections", MOST_CONNECTIONS),
)
Attended = Callable[[str, Callable[[], None]], AbstractContextManager[None]]
DECISIONS = {"revoke": "revoked", "reinstate": "reinstated", "remove": "removed"}


class Desk:
    """Answers calls: in a thread, with Guilder's errors as data.

    Args:
        door: Who may call.
        pool: Where answers are worked out.
        met: Is told where a member calls from, as gRPC names it, and who it is.
    """

    def __init__(
        self, door: Door, pool: Executor, met: Callable[[str, str], None]
    ) -> None:
        self.door = door
        self._pool, self._met = pool, met

    async def answer(
        self, context: Any, call: str, act: Callable[[Caller], Any], about: str = ""
    ) -> Any:
        """Let the caller in and return what `act` makes; errors end the call."""

        def work() -> Any:
            caller = self.door.let_in(context.auth_context(), call, about)
            self._met(context.peer(), caller.name)
            return act(caller)

        return await self.hear(context, work)

    async def hear(self, context: Any, work: Callable[[], Any]) -> Any:
        """Return what `work` makes for anybody; errors end the call."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except Exception as error:
            await abort(context, error)


async def abort(context: Any, error: Exception) -> None:
    """End a call with an error; a bug is told without its text."""
    if not isinstance(error, GuilderError):
        log.error("a control call failed", exc_info=error)
        error = RunFailed("GLD-R012", "the server met a bug; see its log")
    sent = ((ERROR_KEY, pack(error)),)
    await context.abort(grpc.StatusCode.ABORTED, error.error_id, sent)


class Enrolment:
    """What strangers may ask: to join, by an invitation."""

    def __init__(
        self, desk: Desk, register: Register, server_url: str, control_url: str
    ) -> None:
        self._desk = desk
        self._register = register
        self._urls = {"server_url": server_url, "control_url": control_url}
        self._free = asyncio.Semaphore(MOST_JOINS)

    async def Join(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Certify a request, or say that a person has to look first."""

        def work() -> Any:
            chain = self._register.join(
                request.invitation_id, request.secret, request.request, request.proof
            )
            return messages.JoinReply(
                chain=chain or (), is_pending=chain is None, **self._urls
            )

        async with self._free:
            return await self._desk.hear(context, work)


class Membership:
    """What members ask about themselves.

    Args:
        desk: Answers.
        register: The book; None where sites are certificates in a folder.
        attended: Keeps a site online while it listens; see `Hub.attended`.
    """

    def __init__(
        self, desk: Desk, register: Register | None, attended: Attended
    ) -> None:
        self._desk = desk
        self._register = register
        self._attended = attended
        self._lines: Counter[str] = Counter()

    async def Attend(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Ring when there is something for a site, which then need not ask."""
        del request
        caller = await self._desk.answer(context, "Attend", lambda caller: caller)
        loop, bell, out = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

        def ring() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(bell.set)

        def cut() -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(out.set)
            ring()

        self._lines[caller.name] += 1
        try:
            _demand_few(caller.name, self._lines[caller.name])
            with (
                self._attended(caller.name, ring),
                self._desk.door.holding(caller, cut),
            ):
                yield messages.Wake()  # whatever was pushed before it listened
                while not out.is_set():
                    rung = await _within(bell, KEEP_ALIVE_S)
                    bell.clear()
                    yield messages.Wake(is_keep_alive=not rung)
                self._desk.door.let_in(context.auth_context(), "Attend")
        except GuilderError as error:
            await abort(context, error)
        finally:
            self._lines[caller.name] -= 1

    async def Renew(self, request: Any, context: Any) -> Any:  # noqa: N802
        """A new certificate for the same keys, after half of its life."""
        del request

        def work(caller: Caller) -> Any:
            register = self._book()
            assert caller.member is not None, "the log names every caller"
            return messages.JoinReply(chain=register.renew(caller.member))

        return await self._desk.answer(context, "Renew", work)

    async def Leave(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take note that a site takes no further part."""
        del request

        def work(caller: Caller) -> Any:
            self._book().change("left", caller.name, caller.name)
            return messages.Done()

        return await self._desk.answer(context, "Leave", work)

    def _book(self) -> Register:
        if self._register is None:
            raise EnrolmentError(
                "GLD-E065",
                "this server enrols nobody: its sites are certificates in a folder",
                fix="Ask the operator for new files.",
            )
        return self._register


class Admins:
    """What admins decide about others.

    Args:
        desk: Answers.
        register: The book.
        place: Host and port at which strangers find the server.
        online: Names of the sites that are there.
        seen: When each site was last heard of.
    """

    def __init__(
        self,
        desk: Desk,
        register: Register,
        place: tuple[str, int],
        online: Callable[[], set[str]],
        seen: Callable[[], Mapping[str, float]],
    ) -> None:
        self._desk, self._online, self._seen = desk, online, seen
        self._register = register
        self._place = place

    async def Invite(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Invite a site or a person."""

        def work(caller: Caller) -> Any:
            token = self._register.invite(
                caller.name,
                request.name,
                role=request.role,
                hours=request.hours,
                needs_approval=request.needs_approval,
                place=self._place,
            )
            return messages.InviteReply(token=token.text())

        return await self._desk.answer(context, "Invite", work)

    async def Members(self, request: Any, context: Any) -> Any:  # noqa: N802
        """List members, and invitations that wait."""
        del request

        def work(caller: Caller) -> Any:
            del caller
            here, seen = self._online(), self._seen()
            rows = [
                {
                    **_row(member),
                    "online": member.name in here,
                    "last_seen": seen.get(member.name),
                }
                for member in self._register.members()
            ]
            rows += [
                {
                    "name": each.name,
                    "role": each.role,
                    "state": "waits for approval"
                    if each.state == "requested"
                    else "invited",
                    "code": short_code(each.request_sha256)
                    if each.request_sha256
                    else "",
                    "expires": each.expires,
                }
                for each in self._register.invitations()
            ]
            return messages.MembersReply(
                members=[json.dumps(row).encode() for row in rows]
            )

        return await self._desk.answer(context, "Members", work)

    async def Decide(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Approve or refuse a request; revoke, reinstate or remove a member."""

        def work(caller: Caller) -> Any:
            if request.decision == "approve":
                self._register.approve(caller.name, request.name)
            elif request.decision == "refuse":
                self._register.refuse(caller.name, request.name)
            elif request.decision in DECISIONS:
                kind = DECISIONS[request.decision]
                self._register.change(kind, caller.name, request.name)
            else:
                raise EnrolmentError("GLD-E059", "there is no such decision")
            return messages.Done()

        return await self._desk.answer(context, "Decide", work)

    async def Log(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Stream the log's entries, oldest first, and a signed end."""

        def work(caller: Caller) -> Any:
            del caller
            return list(self._register.export(request.after))

        for told in await self._desk.answer(context, "Log", work):
            yield messages.LogEntry(json=json.dumps(told).encode())


def _demand_few(name: str, num_lines: int) -> None:
    if num_lines > MOST_LINES:
        raise NetworkError(
            "GLD-N082",
            f"site {name!r} has {MOST_LINES} lines to be rung on already",
            fix="Run one client with these keys; an old line ends within a minute.",
        )


async def _within(bell: asyncio.Event, seconds: float) -> bool:
    """Whether the bell was rung in time."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(bell.wait(), seconds)
    return bell.is_set()


def _row(member: Member) -> dict[str, Any]:
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(member.certificate.encode())
    return {
        "name": member.name,
        "role": member.role,
        "state": member.state,
        "since": member.since,
        "expires": int(certificate.not_valid_after_utc.timestamp()),
    }
