"""The operator's channel: submit a study, watch, list, resume and stop its run.

gRPC over mutual TLS; only a certificate with the role operator is heard. Errors of
Guilder cross it whole, so that both ends exit with the same code. It decides nothing
about a study and never meets a site.
"""

import itertools
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its causes are told by diagnosis.py
import grpc

from guilder_server import diagnosis
from guilder_server.settings import ServerFile
from guilder_shared import certificates, tls
from guilder_shared.errors import (
    EnrolmentError,
    GuilderError,
    NetworkError,
    RunFailed,
    StudyError,
)
from guilder_shared.identity import read_private
from guilder_shared.plain_text import one_line
from guilder_shared.proto import control_pb2 as messages
from guilder_shared.proto import control_pb2_grpc

stubs: Any = control_pb2_grpc  # generated without types
log = logging.getLogger(__name__)

ERROR_KEY = "guilder-error-bin"
LONGEST_PART = 1500  # characters of an error's part; metadata holds 8 KiB
REPLY_S = 120.0  # solving a plan takes seconds
PATIENCE_S = 60.0  # how long a watcher waits for a server that restarts
RETRY_S = 0.2
MOST_WATCHERS = 16
MOST_CALLS = 8  # threads beside the watchers'
SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second server shares the port in silence
    ("grpc.max_receive_message_length", 5 << 20),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
)
CLIENT_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.keepalive_time_ms", 30_000),  # a dead connection is noticed while watching
)

ERROR_ID = re.compile(r"GLD-[A-Z][0-9]{3}")
UNKNOWN = "GLD-R012"  # what an id that is none is told as
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
ROLES = {certificates.ROLE_URI + "operator", certificates.ROLE_URI + "admin"}


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
    """Serves the control channel from threads of this process.

    Args:
        settings: server.toml; behind a shared port it listens on loopback alone.
        handler: What carries out the operator's words; called from many threads.
    """

    def __init__(self, settings: ServerFile, handler: RunHandler) -> None:
        self._settings = settings
        workers = ThreadPoolExecutor(MOST_WATCHERS + MOST_CALLS, "control")
        self._server = grpc.server(workers, options=SERVER_OPTIONS)
        service = _Service(handler)
        stubs.add_ControlServicer_to_server(service, self._server)
        self.port = 0

    def start(self) -> None:
        """Listen; `port` is known when this returns.

        Raises:
            NetworkError: The port is taken (GLD-N054).
            EnrolmentError: A key or certificate is missing, open to others or run out.
        """
        keys = self._settings.keys
        tls.server_context(
            tls.KeyFiles(keys.key, keys.certificate, keys.authority)
        )  # the same checks as the sites' port
        pair = (read_private(keys.key), keys.certificate.read_bytes())
        credentials = grpc.ssl_server_credentials(
            [pair], keys.authority.read_bytes(), require_client_auth=True
        )
        address = diagnosis.address(*self._settings.server.control_address)
        try:
            self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            raise NetworkError(
                "GLD-N054",
                f"cannot listen on {address}: the port is taken, or not of this host",
                fix="End what holds it, or change control_port in server.toml.",
            ) from None
        self._server.start()

    def stop(self) -> None:
        """End every watch and call, and give the port back."""
        self._server.stop(grace=1.0).wait()


class _Service:
    """Each call: who asks, the handler's answer, errors as data."""

    def __init__(self, handler: RunHandler) -> None:
        self._handler = handler
        self._watchers = threading.Semaphore(MOST_WATCHERS)

    def Submit(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Store and queue a study."""
        with _answering(context):
            run_id = self._handler.submit(request.study, list(request.sites))
        return messages.SubmitReply(run_id=run_id)

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Stream a run's events, from the one after those the watcher has seen."""
        gone = threading.Event()
        with _answering(context), self._watching():
            if not context.add_callback(gone.set):
                return
            events = self._handler.watch(request.run_id, gone=gone)
            for event in itertools.islice(events, request.after, None):
                yield messages.RunEvent(json=json.dumps(event).encode())

    def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        """All runs."""
        del request
        with _answering(context):
            runs = [json.dumps(run).encode() for run in self._handler.list()]
        return messages.ListReply(runs=runs)

    def Resume(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Queue a run again."""
        with _answering(context):
            self._handler.resume(request.run_id)
        return messages.Done()

    def Stop(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Stop a run."""
        with _answering(context):
            self._handler.stop_run(request.run_id)
        return messages.Done()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Keep threads for the other calls, however many watch."""
        if not self._watchers.acquire(blocking=False):
            raise NetworkError(
                "GLD-N057",
                f"{MOST_WATCHERS} watchers are there already",
                fix="End one, or ask `guilder run list` now and then.",
            )
        try:
            yield
        finally:
            self._watchers.release()


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
        if diagnosis.is_loopback(host):  # gRPC would send even this through a proxy
            options.append(("grpc.enable_http_proxy", 0))
        self._channel = grpc.secure_channel(
            diagnosis.address(host, port), credentials, options
        )
        self._calls = stubs.ControlStub(self._channel)

    @classmethod
    def from_settings(cls, settings: ServerFile) -> Self:
        """Use the operator's keys and the address of server.toml.

        Raises:
            StudyError: It names no operator's keys (GLD-C050), or leaves the control
                port to chance (GLD-C051).
        """
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

    def watch(
        self, run_id: str, patience_s: float = PATIENCE_S
    ) -> Generator[dict[str, Any], None, None]:
        """Follow a run from its first event to its last.

        Each event comes once, also across a restart of the server: once connected,
        the watch waits `patience_s` for the server to come back.

        Raises:
            GuilderError: As in `submit`.
        """
        seen, away_since = 0, float("-inf")
        while True:
            call = self._calls.Watch(messages.WatchRequest(run_id=run_id, after=seen))
            try:
                for event in call:
                    seen, away_since = seen + 1, float("inf")
                    yield json.loads(event.json)
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
            return _unpacked(sent)
        code = error.code()
        if code in AWAY:
            return diagnosis.unreachable(*self._place, self._context)
        place = diagnosis.address(*self._place)
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


@contextmanager
def _answering(context: Any) -> Iterator[None]:
    """Let an operator in, and turn what is raised into the call's status."""
    try:
        _check_role(context)
        yield
    except GuilderError as error:
        _abort(context, error)
    except Exception:
        log.exception("a control call failed")
        _abort(context, RunFailed("GLD-R012", "the server met a bug; see its log"))


def _check_role(context: Any) -> None:
    """Refuse everyone but an operator: a site has no business here.

    Raises:
        EnrolmentError: GLD-E030, naming who it is.
    """
    peer = context.auth_context()
    names = {name.decode() for name in peer.get("x509_subject_alternative_name", ())}
    if not names & ROLES:
        who = ", ".join(name.decode() for name in peer.get("x509_common_name", ()))
        raise EnrolmentError(
            "GLD-E030",
            f"the certificate of {who!r} is no operator's: it may not control runs",
            fix="Use operator.key and operator.pem, made by `guilder server init`.",
        )


def _abort(context: Any, error: GuilderError) -> None:
    parts = (error.error_id, error.what, error.why, error.fix)
    id_, what, why, fix = (part[:LONGEST_PART] for part in parts)
    sent = messages.Error(id=id_, what=what, why=why, fix=fix).SerializeToString()
    context.set_trailing_metadata(((ERROR_KEY, sent),))
    context.abort(grpc.StatusCode.ABORTED, id_)


def _unpacked(sent: bytes) -> GuilderError:
    """The error as it was raised at the server, of the class its id belongs to."""
    error = messages.Error.FromString(sent)
    kinds = {kind.letter: kind for kind in GuilderError.__subclasses__()}
    known = ERROR_ID.fullmatch(error.id) and error.id[4] in kinds
    kind, error_id = (kinds[error.id[4]], error.id) if known else (RunFailed, UNKNOWN)
    what, why, fix = (
        one_line(part, LONGEST_PART) for part in (error.what, error.why, error.fix)
    )
    return kind(error_id, what, why=why, fix=fix)


def _is_away(error: Any) -> bool:
    sent = dict(error.trailing_metadata() or ())
    return error.code() in AWAY and ERROR_KEY not in sent
