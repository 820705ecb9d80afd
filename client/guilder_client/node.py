"""The resident process of a site: asks the server for work, calls the app, answers.

Only outbound connections; no port, no bundle, no code from elsewhere: the app is
the one that is installed. Nothing here is durable: what is worth keeping, the app
keeps, and gives again when it is asked again. This module knows no study and no row.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import fleet_pb2, message_pb2
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)

from guilder_client import outbound
from guilder_client.calls import HEARTBEAT_S, Calls, Held, heartbeat
from guilder_client.incoming import Incoming
from guilder_client.outage import cause_of, judge_clock, judge_proxy, judge_tls
from guilder_client.settings import ProxyLines
from guilder_shared.certificates import load_certificate, load_tls_key
from guilder_shared.errors import EnrolmentError, without_values
from guilder_shared.pieces import Contents, Cut, Piece, opened
from guilder_shared.plain_text import one_line
from guilder_shared.tls import KeyFiles, check_dates, client_context

log = logging.getLogger("guilder.node")
logging.getLogger("flwr").setLevel(logging.ERROR)
logging.getLogger("httpx").setLevel(logging.WARNING)

MESSAGE_TYPES = frozenset({"train", "query.offer", "query.close"})
LARGEST_MESSAGE = (2 << 30) + outbound.LARGEST_ANSWER  # a model of 2 GiB: see wire.py
QUIET_S = 10.0  # without work, then it sleeps until it is rung
TURN_FAILED, UNKNOWN_REQUEST = "turn-failed", "unknown-request"


@dataclass(frozen=True)
class Pace:
    """How long the node waits, seconds.

    Attributes:
        pull_s: An empty pull stays open this long at the server.
        busy_s: Between tries to upload while another site does; with jitter.
        first_retry_s: After a lost connection; doubles, with jitter.
        longest_retry_s: And grows no further. There is no last try.
    """

    pull_s: float = 2.0
    busy_s: float = 0.05
    first_retry_s: float = 0.05
    longest_retry_s: float = 1.0


class Node:
    """One site on Flower's Fleet service, for as long as the process lives.

    Args:
        server_url: As `https://host:port`.
        keys: The site's key files, or the folder with site.key, site.pem, ca.pem.
        client_app: Called for every message, one at a time.
        node_config: Handed to the app in Flower's context.
        on_online: Called each time the server has taken the site in.
        pace: How long it waits.
        held: Whether a reply must stay here for now; asked again for every 64 KiB.
        proxy: The institution's; None: HTTPS_PROXY counts.
        transport: Another way than the network, for a rehearsal.
        sleep: Waits until the server rings, and says whether it would; see `Bell`.
        incoming: Keeps what has come of a message; None: in memory alone.

    Raises:
        EnrolmentError: A key or certificate is missing, open to others or run out.
    """

    def __init__(
        self,
        server_url: str,
        keys: KeyFiles | Path,
        client_app: ClientApp,
        node_config: Mapping[str, str],
        *,
        on_online: Callable[[], None] = lambda: None,
        pace: Pace = Pace(),  # frozen
        held: Callable[[Message], bool] = lambda _reply: False,
        proxy: ProxyLines | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[threading.Event], bool] = lambda _stop: False,
        incoming: Incoming | None = None,
    ) -> None:
        self._sleep, self._is_asleep = sleep, False
        self._url, self._app = server_url, client_app
        self._config = dict(node_config)
        self._on_online = on_online
        self._pace = pace
        self._held = held
        files = keys if isinstance(keys, KeyFiles) else KeyFiles.in_folder(keys, "site")
        self._certificate = files.certificate
        self._files, self._tls = files, client_context(files)
        way = outbound.client(server_url, self._tls, proxy=proxy, transport=transport)
        self._client = Calls(server_url, way, load_tls_key(files.key))
        self._incoming = incoming or Incoming(None)
        self._node_id = 0
        self._context: Context | None = None

    def show_anew(self) -> None:
        """Show the certificate that is on disk now, in every later connection."""
        self._tls.load_cert_chain(self._files.certificate, self._files.key)

    def run_forever(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, through lost connections and server restarts.

        Raises:
            NetworkError: This machine's clock is wrong (GLD-N010); names seconds. Or
                the proxy wants another password (GLD-N100).
            EnrolmentError: The server is not of this consortium (GLD-E012), does not
                know this site (GLD-E013), or refuses its certificate (GLD-E014),
                which has perhaps run out meanwhile (GLD-E008).
        """
        retry_s, said = self._pace.first_retry_s, ""
        while not stop.is_set():
            began_s = time.monotonic()
            try:
                self._serve(stop)
            except httpx.HTTPStatusError as error:
                self._judge(error.response)
            except Held:  # going online anew, the server asks for the turn again
                log.info("paused: a reply stays here")
            except (httpx.RequestError, ValueError) as error:
                judge_proxy(error)
                judge_tls(error, self._url)
                check_dates(load_certificate(self._certificate), self._certificate)
                cause = cause_of(error)  # said once an outage
                level = logging.DEBUG if cause == said else logging.INFO
                log.log(level, "no answer from %s: %s", self._url, cause)
                said = cause
            if time.monotonic() - began_s > self._pace.longest_retry_s:
                retry_s, said = self._pace.first_retry_s, ""
            stop.wait(retry_s * random.uniform(0.5, 1))  # noqa: S311
            retry_s = min(2 * retry_s, self._pace.longest_retry_s)

    def _serve(self, stop: threading.Event) -> None:
        """Go online and work until the connection fails or `stop` is set."""
        answer = self._client.ActivateNode(
            fleet_pb2.ActivateNodeRequest(
                public_key=self._client.node_key, heartbeat_interval=HEARTBEAT_S
            )
        )
        self._node_id = answer.node_id
        ended = threading.Event()
        heart = threading.Thread(
            target=self._beat, args=(ended,), name="guilder-heartbeat", daemon=True
        )
        heart.start()
        try:
            self._on_online()
            idle_s, busy_s = 0.02, time.monotonic()
            while not stop.is_set():
                asked_s = time.monotonic()
                message = self._pull()
                if message is not None:
                    reply = self._answer(message)
                    del message  # a model may be large, and so may its reply
                    self._push(reply, stop)
                    del reply
                    self._incoming.finished()
                    idle_s, busy_s = 0.02, time.monotonic()
                elif asked_s - busy_s > QUIET_S and self._rest(stop):
                    continue  # rung
                elif time.monotonic() - asked_s < self._pace.pull_s / 2:
                    stop.wait(idle_s)  # the server does not keep pulls open
                    idle_s = min(2 * idle_s, 2.0)
        finally:
            ended.set()
            if stop.is_set():  # else the server would wait for us until the lease ends
                with contextlib.suppress(httpx.HTTPError):
                    self._client.DeactivateNode(
                        fleet_pb2.DeactivateNodeRequest(node_id=self._node_id)
                    )

    def _rest(self, stop: threading.Event) -> bool:
        """Sleep until the server rings; it keeps the lease meanwhile."""
        self._is_asleep = True
        try:
            return self._sleep(stop)
        finally:
            self._is_asleep = False

    def _beat(self, ended: threading.Event) -> None:
        request = heartbeat(self._node_id)
        while not ended.wait(HEARTBEAT_S * random.uniform(0.7, 0.9)):  # noqa: S311
            if self._is_asleep:
                continue
            with contextlib.suppress(httpx.HTTPError):  # the worker meets the same
                self._client.SendNodeHeartbeat(request)

    def _pull(self) -> Message | None:
        """Fetch one message and everything in it."""
        node = FlowerNode(node_id=self._node_id)
        self._client.pull_s = self._pace.pull_s
        found = self._client.PullMessages(fleet_pb2.PullMessagesRequest(node=node))
        if not found.messages_list:
            self._incoming.nothing_asked()
            return None
        try:
            metadata = message_from_proto(found.messages_list[0]).metadata
            tree = found.message_object_trees[0]
        except Exception as error:  # a server may send anything
            raise _unreadable(error) from None
        contents = self._fetch(metadata.run_id, tree)
        self._client.ConfirmMessageReceived(
            message_pb2.ConfirmMessageReceivedRequest(
                node=node,
                run_id=metadata.run_id,
                message_object_id=metadata.message_id,
            )
        )
        self._incoming.whole()
        message = _inflate(metadata.message_id, contents)
        message.metadata.__dict__["_message_id"] = metadata.message_id
        return message

    def _fetch(self, run_id: int, tree: ObjectTree) -> Contents:
        """Every object of a message; what came before a line broke is there already."""
        names = list(dict.fromkeys(n.object_id for n in iterate_object_tree(tree)))
        if self._client.message_bytes > LARGEST_MESSAGE:  # room is made by this word
            raise ValueError("GLD-N129 a message larger than any")
        contents = self._incoming.begin(names, self._client.message_bytes)
        num_bytes = sum(map(len, contents.values()))
        for name in names:
            if name in contents:
                continue
            content = self._client.pull(
                message_pb2.PullObjectRequest(
                    node=FlowerNode(node_id=self._node_id),
                    run_id=run_id,
                    object_id=name,
                ),
                self._incoming.landing,
            )
            contents[name] = content
            if isinstance(content, Piece):
                self._incoming.put(name, content)
            num_bytes += len(content)
            if num_bytes > LARGEST_MESSAGE:
                raise ValueError("GLD-N129 a message larger than any")
        return contents

    def _answer(self, message: Message) -> Message:
        """Call the app; what it raises leaves as one constant word."""
        if message.metadata.message_type not in MESSAGE_TYPES:
            asked = message.metadata.message_type
            log.warning("the server asked for %r", asked[:40])
            return _error(message, UNKNOWN_REQUEST)
        try:
            return self._app(message, self._context_of(message.metadata.run_id))
        except Exception as error:  # whatever it is, only one word may leave
            log.error("the turn failed: %s", without_values(error))
            return _error(message, TURN_FAILED)

    def _context_of(self, run_id: int) -> Context:
        if self._context is None or self._context.run_id != run_id:
            self._context = Context(
                run_id=run_id,
                node_id=self._node_id,
                node_config=dict(self._config),
                state=RecordDict(),
                run_config={},
            )
        return self._context

    def _push(self, reply: Message, stop: threading.Event) -> None:
        """Send a reply, when no other site is sending; Held if it must stay."""
        self._client.held = lambda: self._held(reply)
        try:
            self._send(reply, stop)
        finally:
            self._client.held = None

    def _send(self, reply: Message, stop: threading.Event) -> None:
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = get_all_nested_objects(reply)
            contents: Contents = {
                name: item.piece if isinstance(item, Cut) else item.deflate()
                for name, item in objects.items()
            }
            request = fleet_pb2.PushMessagesRequest(
                node=FlowerNode(node_id=self._node_id),
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
            )
        self._client.upload_bytes = sum(map(len, contents.values()))
        announced = self._announce(request, stop)
        if announced is None:
            return
        wanted = set(announced.objects_to_push)
        for object_id, content in contents.items():  # children before their parents
            if object_id in wanted:
                self._client.push(
                    message_pb2.PushObjectRequest(
                        node=request.node,
                        run_id=reply.metadata.run_id,
                        object_id=object_id,
                        session_id=announced.session_id,
                    ),
                    content,
                )

    def _announce(
        self, request: fleet_pb2.PushMessagesRequest, stop: threading.Event
    ) -> fleet_pb2.PushMessagesResponse | None:
        while not stop.is_set():
            try:
                return self._client.PushMessages(request)
            except httpx.HTTPStatusError as error:
                if error.response.status_code == httpx.codes.CONFLICT:
                    log.info("the server no longer waits for this reply")
                    return None
                if error.response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    raise
            stop.wait(self._pace.busy_s * random.uniform(0.5, 1.5))  # noqa: S311
        return None

    def _judge(self, response: httpx.Response) -> None:
        """Tell what going online anew will mend from what it will not."""
        if response.status_code == httpx.codes.FORBIDDEN and response.content:
            raise EnrolmentError(
                "GLD-E013",
                f"{self._url} does not take this site in: {response.text[:50]!r}",
                fix="Ask the operator whether this site is in the server's roster.",
            )
        if response.status_code == httpx.codes.UNAUTHORIZED:
            judge_clock(response.headers.get("date", ""))
        said = one_line(response.text, 40)
        log.info("%s: %d %s; going online anew", self._url, response.status_code, said)


def _inflate(message_id: str, contents: Contents) -> Message:
    """Build the message; ValueError if what came is none."""
    try:
        return opened(message_id, contents, LARGEST_MESSAGE)
    except Exception as error:  # a server may send anything
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> ValueError:
    return ValueError(f"GLD-N129 unreadable: {type(error).__name__}")


def _error(message: Message, word: str) -> Message:
    code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    return Message(Error(code=code, reason=word), reply_to=message)
