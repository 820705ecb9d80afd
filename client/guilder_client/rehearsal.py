"""A rehearsal: one whole turn of an offered study that sends and charges nothing.

The site's own code does all of it: node, app, policy, turn, seal. Three things are
others': the rows are made up, the ledger is in memory, and the network is an object in
this process that hands out the server's messages and keeps what it is sent.

Review, mathematics: rows of the site are not read, so nothing computed from them exists
(decision 048); what is listed depends on study, plan and protocol alone.
Review, crash order: sealed bytes of made-up rows lie in a temporary folder.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
from flwr.app import Message, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from google.protobuf.message import Message as Protobuf

from guilder_client import app as client_app
from guilder_client.calls import heartbeat
from guilder_client.data.source import from_table
from guilder_client.disclosure import CALLS, Field, Sent, fields
from guilder_client.node import Node
from guilder_client.offers import Offered
from guilder_client.sealed import SealedTurns
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_shared import tls, wire
from guilder_shared.errors import PolicyRefused
from guilder_shared.identity import SigningKey
from guilder_shared.messages import (
    Close,
    Receipt,
    TurnRequest,
    Verdict,
    pack,
    sha256,
)
from guilder_shared.models import registry
from guilder_shared.officer import Officer
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study
from guilder_shared.training.selftest import source

MADE_UP_UNITS = 64
ANYBODY = 1  # the server's node id and the run's number; any will do
Talk = Iterator[tuple[RecordDict, str, str]]  # content, type, group


def preview(settings: SiteFile, offered: Offered) -> list[Field]:
    """Every field that would leave: online, answer, one turn, the end.

    Args:
        settings: Of this site; its keys sign, for nobody.
        offered: The study and its plan.

    Raises:
        PolicyRefused, StudyError, PlanError, DeviceError: The site would refuse the
            study, whatever its ledger says.
    """
    study = offered.read()
    with tempfile.TemporaryDirectory(prefix="guilder-preview-") as folder:
        site = _stand_in(settings, study, Path(folder))
        try:
            return _rehearse(site, offered, study)
        finally:
            site.ledger.shut()


def _rehearse(site: Site, offered: Offered, study: Study) -> list[Field]:
    stop = threading.Event()
    nobody = Nobody(stop)
    nobody.follow(_talk(offered, study, nobody))
    keys = site.settings.keys
    node = Node(
        site.settings.site.server,
        tls.KeyFiles(keys.key, keys.certificate, keys.authority),
        client_app.make_app(lambda _context: site),
        {"site": site.name},
        transport=nobody,
    )
    node.run_forever(stop)
    if nobody.refused:
        raise PolicyRefused(
            "GLD-S064",
            "the rehearsal ended before its turn: the site would refuse this study",
            why=nobody.refused,
        )
    beat = heartbeat(ANYBODY + 1).SerializeToString()  # too seldom to come by itself
    path = "/v1/fleet/send-node-heartbeat"
    return fields([*nobody.sent, Sent(path, nobody.sent[0].headers, beat)])


def _talk(offered: Offered, study: Study, nobody: "Nobody") -> Talk:
    """What a server asks in a run of one turn of each kind."""
    yield wire.encode_offer(offered.offer()), wire.OFFER, "offer"
    answer = wire.decode_answer(nobody.heard())
    if answer.verdict != Verdict.ACCEPTED:
        nobody.refused = answer.reason or str(answer.verdict)
        return
    model = pack(registry.initial(study))
    digest, measuring = study.digest(), study.measuring_round
    kinds = {1, measuring or 1, 1 + (study.evaluation.every or 0)}
    rounds = sorted(kinds)
    records = {wire.MODEL: wire.model_record(model)}
    for turn_no, round_no in enumerate(rounds, 1):
        numbers = (turn_no, round_no)
        request = TurnRequest(offered.run_id, answer.grant_id, *numbers, digest, model)
        if study.aggregation.has_controls:  # any will do: it is the server's
            request = replace(request, control=model)
            records[wire.CONTROL] = records[wire.MODEL]
        yield wire.encode_request(request, records), wire.TURN, str(round_no)
        reply = wire.decode_reply(nobody.heard())
        if reply.verdict != Verdict.DONE:
            nobody.refused = reply.reason or str(reply.verdict)
            return
        receipt = Receipt(turn_no, sha256(reply.update))
    closing = Close(offered.run_id, answer.grant_id, receipt)
    yield wire.encode_close(closing), wire.CLOSE, "close"


def _stand_in(settings: SiteFile, study: Study, folder: Path) -> Site:
    """The site with made-up rows, and an officer of this moment who permits it."""
    mapped = settings.data.get(study.data.dataset)
    if mapped is None:
        raise PolicyRefused(
            "GLD-S004",
            f"site {settings.site.name!r} maps no data to the dataset "
            f"{study.data.dataset!r}",
            fix=f"add [data.{study.data.dataset}] to site.toml",
        )
    officer = Officer(SigningKey.generate(), site=settings.site.name)
    delta = study.privacy.delta
    orders = [
        officer.budget(
            "rehearsal", 2 * study.privacy.epsilon, 4 * delta, [study.data.dataset]
        ),
        officer.approve(
            study.digest(), study.study.name, epsilon=study.privacy.epsilon, delta=delta
        ),
    ]
    ledger = Ledger.open(
        None,
        SigningKey.generate(),
        site=settings.site.name,
        officer=officer.public_hex,
        orders=orders,
    )
    made_up = source.table(study, MADE_UP_UNITS)
    size = (mapped.public_size, mapped.public_persons)
    return Site(
        name=settings.site.name,
        settings=settings,
        ledger=ledger,
        sealed=SealedTurns(folder),
        sources={study.data.dataset: from_table(made_up, *size)},
        paced=False,
    )


class Nobody(httpx.BaseTransport):
    """The other end of a rehearsal: asks as a server does, and tells nobody.

    Attributes:
        sent: What the site sent, in order.
        refused: Why the rehearsal ended early; empty if it did not.
    """

    def __init__(self, stop: threading.Event) -> None:
        self.sent: list[Sent] = []
        self.refused = ""
        self._stop = stop
        self._talk: Talk = iter(())
        self._objects: dict[str, bytes] = {}
        self._reply: tuple[str, dict[str, bytes], set[str]] = ("", {}, set())
        self._answers: dict[str, Callable[[Protobuf], Protobuf]] = {
            "activate-node": lambda _: fleet_pb2.ActivateNodeResponse(node_id=2),
            "deactivate-node": lambda _: fleet_pb2.DeactivateNodeResponse(),
            "send-node-heartbeat": lambda _: heartbeat_pb2.SendNodeHeartbeatResponse(
                success=True
            ),
            "pull-messages": self._ask,
            "pull-object": self._give,
            "confirm-message-received": lambda _: (
                message_pb2.ConfirmMessageReceivedResponse()
            ),
            "push-messages": self._announced,
            "push-object": self._received,
        }

    def follow(self, talk: Talk) -> None:
        """Ask what `talk` yields, each when the one before is answered."""
        self._talk = talk

    def heard(self) -> RecordDict:
        """The content of the last reply."""
        message_id, contents, _ = self._reply
        reply = inflate_object_from_contents(message_id, dict(contents))
        assert isinstance(reply, Message), type(reply)
        if reply.has_error():
            return RecordDict()
        return reply.content

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Keep the request, and answer it as a server would."""
        body = b"".join(iter(request.stream))  # type: ignore[arg-type]
        sent = Sent(request.url.path, tuple(request.headers), body)
        self.sent.append(sent)
        asked = CALLS[sent.call]()
        asked.ParseFromString(sent.body)
        answer = self._answers[sent.call](asked).SerializeToString()
        length = {"content-length": str(len(answer))}
        return httpx.Response(200, headers=length, content=answer, request=request)

    def _ask(self, _request: Protobuf) -> Protobuf:
        following = next(self._talk, None)
        if following is None:
            self._stop.set()
            return fleet_pb2.PullMessagesResponse()
        content, kind, group = following
        metadata = Metadata(
            run_id=ANYBODY,
            message_id="",
            src_node_id=ANYBODY,
            dst_node_id=ANYBODY + 1,
            reply_to_message_id="",
            group_id=group,
            created_at=0.0,
            ttl=660.0,
            message_type=kind,
            src_task_id=ANYBODY,
        )
        message = make_message(metadata, content=content)
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
            nested = get_all_nested_objects(message)
            self._objects = {name: item.deflate() for name, item in nested.items()}
            return fleet_pb2.PullMessagesResponse(
                messages_list=[message_to_proto(remove_content_from_message(message))],
                message_object_trees=[get_object_tree(message)],
            )

    def _give(self, request: Protobuf) -> Protobuf:
        assert isinstance(request, message_pb2.PullObjectRequest)
        return message_pb2.PullObjectResponse(
            object_found=True,
            object_available=True,
            object_content=self._objects[request.object_id],
        )

    def _announced(self, request: Protobuf) -> Protobuf:
        assert isinstance(request, fleet_pb2.PushMessagesRequest)
        [tree] = request.message_object_trees
        wanted = {each.object_id for each in iterate_object_tree(tree)}
        message_id = request.messages_list[0].metadata.message_id
        self._reply = (message_id, {}, wanted)
        return fleet_pb2.PushMessagesResponse(objects_to_push=wanted, session_id="1")

    def _received(self, request: Protobuf) -> Protobuf:
        assert isinstance(request, message_pb2.PushObjectRequest)
        self._reply[1][request.object_id] = request.object_content
        return message_pb2.PushObjectResponse(stored=True)
