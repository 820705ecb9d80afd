"""The operator's end of the control channel: calls, their errors, a watch that lasts.

gRPC over mutual TLS to the server of server.toml, from this machine or another. It
decides nothing; what a call means is the server's to say.
"""

import json
import os
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its causes are told by diagnosis.py
import grpc

from guilder_server import diagnosis
from guilder_server.settings import ConsoleFile, ServerFile
from guilder_shared import tunnel
from guilder_shared.errors import GuilderError, NetworkError, StudyError
from guilder_shared.identity import read_private
from guilder_shared.plain_text import one_line
from guilder_shared.proto import control_pb2 as messages
from guilder_shared.proto import control_pb2_grpc
from guilder_shared.telling import ERROR_KEY, unpack

stubs: Any = control_pb2_grpc  # generated without types

REPLY_S = 120.0  # solving a plan takes seconds
PATIENCE_S = 60.0  # how long a watcher waits for a server that restarts
RETRY_S = 0.2
AWAITING = "awaiting"  # no event of the run: nothing stores it
CLIENT_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.keepalive_time_ms", 25_000),  # firewalls forget a line silent for 30 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),  # else one a minute, from the third on
)
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class ControlClient:
    """The operator's end of the channel; usable as a context manager.

    Args:
        host: The server, by a name or address that its certificate holds.
        port: Its control port.
        key: The operator's private key.
        certificate: The operator's certificate.
        authority: The consortium's authority; no other is believed.

    Raises:
        EnrolmentError: A key or certificate is missing, open to others or run out.
    """

    def __init__(
        self, host: str, port: int, *, key: Path, certificate: Path, authority: Path
    ) -> None:
        self._place = (host, port)
        self._context = diagnosis.operator_context(key, certificate, authority)
        credentials = grpc.ssl_channel_credentials(
            authority.read_bytes(), read_private(key), certificate.read_bytes()
        )
        options = [*CLIENT_OPTIONS]
        if tunnel.is_this_machine(host):  # gRPC would send even this through a proxy
            options.append(("grpc.enable_http_proxy", 0))
        self._channel = grpc.secure_channel(
            tunnel.address(host, port), credentials, options
        )
        self._calls = stubs.ControlStub(self._channel)
        self._register = stubs.RegisterStub(self._channel)

    @classmethod
    def from_settings(cls, settings: ServerFile | ConsoleFile) -> Self:
        """Use the keys and the address of server.toml, or of a person's file.

        Raises:
            StudyError: It names no operator's keys (GLD-C050), or leaves the control
                port to chance (GLD-C051).
        """
        if isinstance(settings, ConsoleFile):
            control = settings.control
            place = urlsplit(control.url)
            return cls(
                place.hostname or "",
                place.port or 443,
                key=control.key,
                certificate=control.certificate,
                authority=control.authority,
            )
        operator, port = settings.operator, settings.server.public_control_port
        if operator is None:
            raise StudyError(
                "GLD-C050",
                "server.toml has no [operator] table: with which key to speak?",
                fix='Add [operator] with key = "operator.key" and certificate.',
            )
        if port == 0:
            raise StudyError(
                "GLD-C051",
                "the control port is 0, so nobody knows where the server listens",
                fix="Give a port in server.toml.",
            )
        host = urlsplit(settings.server.url).hostname or ""
        return cls(
            host,
            port,
            key=operator.key,
            certificate=operator.certificate,
            authority=settings.keys.authority,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a watch in another thread ends with an error."""
        self._channel.close()

    def submit(self, study: bytes, only: Sequence[str] = ()) -> str:
        """Submit a study and return its run id.

        Args:
            study: Canonical JSON.
            only: Names of the sites to take part; empty for all.

        Raises:
            GuilderError: What the server says, or a NetworkError: GLD-N050 to N053
                and N055 to N057. After N053 the study may be there: look first.
        """
        request = messages.SubmitRequest(study=study, sites=only)
        return str(self._call(self._calls.Submit, request).run_id)

    def list(self) -> list[dict[str, Any]]:
        """All runs, newest first; errors as in `submit`."""
        reply = self._call(self._calls.List, messages.ListRequest())
        return [json.loads(run) for run in reply.runs]

    def resume(self, run_id: str) -> None:
        """Queue a failed or stopped run again; errors as in `submit`."""
        self._call(self._calls.Resume, messages.RunRequest(run_id=run_id))

    def stop(self, run_id: str) -> None:
        """Stop a run; errors as in `submit`."""
        self._call(self._calls.Stop, messages.RunRequest(run_id=run_id))

    def invite(
        self, name: str, *, role: str, hours: float, needs_approval: bool
    ) -> str:
        """Invite a site or a person; the token to hand over. Errors as in `submit`."""
        request = messages.InviteRequest(
            name=name, role=role, hours=hours, needs_approval=needs_approval
        )
        return str(self._call(self._register.Invite, request).token)

    def members(self) -> Sequence[dict[str, Any]]:
        """Members and invitations that wait; errors as in `submit`."""
        reply = self._call(self._register.Members, messages.MembersRequest())
        return [json.loads(member) for member in reply.members]

    def decide(self, name: str, decision: str) -> None:
        """Approve, refuse, revoke, reinstate or remove; errors as in `submit`."""
        request = messages.DecideRequest(name=name, decision=decision)
        self._call(self._register.Decide, request)

    def log(self, after: int = 0) -> Sequence[dict[str, Any]]:
        """The log of who belongs here, oldest first; errors as in `submit`."""
        request = messages.LogRequest(after=after)
        entries = self._call(
            lambda asked, timeout: [*self._register.Log(asked, timeout=timeout)],
            request,
        )
        return [json.loads(entry.json) for entry in entries]

    def watch(
        self, run_id: str, patience_s: float = PATIENCE_S
    ) -> Generator[dict[str, Any], None, None]:
        """Follow a run from its first event to its last.

        Each event comes once, also across a restart of the server: once connected,
        the watch waits `patience_s` for the server to come back. In between, when a
        run is silent, comes who is awaited: kind "awaiting", site -> why.

        Raises:
            GuilderError: As in `submit`.
        """
        seen, away_since = 0, float("-inf")
        while True:
            call = self._calls.Watch(messages.WatchRequest(run_id=run_id, after=seen))
            try:
                for event in call:
                    away_since = float("inf")
                    if event.json:
                        seen += 1
                        yield json.loads(event.json)
                    elif event.awaited:
                        yield {"kind": AWAITING, "sites": json.loads(event.awaited)}
                return
            except grpc.RpcError as error:
                now = time.monotonic()
                away_since = min(away_since, now)
                if not _is_away(error) or now - away_since > patience_s:
                    raise self._told(error) from None
                time.sleep(RETRY_S)
            finally:
                call.cancel()

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=REPLY_S)
        except grpc.RpcError as error:
            raise self._told(error) from None

    def _told(self, error: Any) -> GuilderError:
        """The server's own error, or why the server could not be asked."""
        sent = dict(error.trailing_metadata() or ()).get(ERROR_KEY)
        if sent is not None:
            return unpack(sent)
        code = error.code()
        if code in AWAY:
            return diagnosis.unreachable(*self._place, self._context)
        place = tunnel.address(*self._place)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return NetworkError(
                "GLD-N053",
                f"the server at {place} gave no answer within {REPLY_S:.0f} s",
                fix="What was asked may be done: see `guilder run list` first.",
            )
        return NetworkError(
            "GLD-N055",
            f"the server at {place} does not speak our control protocol "
            f"({code.name}: {one_line(str(error.details()), 200)})",
            fix="Compare the versions of Guilder on both ends.",
        )


def _is_away(error: Any) -> bool:
    sent = dict(error.trailing_metadata() or ())
    return error.code() in AWAY and ERROR_KEY not in sent
