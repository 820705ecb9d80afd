"""Spoilt messages to every decoder: each is refused by its own error, none is kept."""

import asyncio
import base64
import contextlib
import gc
import logging
import random
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    generate_private_key,
)
from flwr.app import Message, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
)
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
)
from flwr.supercore.primitives.asymmetric import (
    generate_key_pairs,
    public_key_to_bytes,
    sign_message,
)
from google.protobuf.message import DecodeError

from guilder_client.node import _inflate
from guilder_server import aggregate
from guilder_server.edge import Request
from guilder_server.fleet import FLEET, Fleet
from guilder_server.links import Links
from guilder_server.uploads import UploadGate
from guilder_shared import authority, telling, wire, witnessing
from guilder_shared.compression import pack_update, unpack_update
from guilder_shared.errors import GuilderError
from guilder_shared.identity import SigningKey
from guilder_shared.messages import (
    Answer,
    Close,
    Head,
    Offer,
    Plan,
    Receipt,
    TurnReply,
    TurnRequest,
    Verdict,
    pack,
    unpack,
)
from guilder_shared.orders import Order
from guilder_shared.pieces import Contents
from guilder_shared.proto import control_pb2
from guilder_shared.study import Study
from guilder_simulations.studies import path_of

Decode = Callable[[bytes], Any]
Case = tuple[bytes, Decode]
MAX_GROWTH = 50 << 20  # bytes, over all mutated messages of one decoder

STUDY = Study.load(path_of("breast-cancer"))
SHAPES = {"w": (20, 30), "b": (20,)}
MODEL = pack({n: np.ones(shape, np.float32) for n, shape in SHAPES.items()})
HEAD = Head(7, "c" * 64, "a" * 128)
PLAN = Plan(0.7593, 12, 1e-3)
CONTENTS: dict[str, tuple[RecordDict, Callable[[RecordDict], Any]]] = {
    "offer": (
        wire.encode_offer(Offer("run-1", STUDY.canonical(), PLAN)),
        wire.decode_offer,
    ),
    "answer": (
        wire.encode_answer(Answer(Verdict.DONE, "bank-a", "grant-1")),
        wire.decode_answer,
    ),
    "request": (
        wire.encode_request(
            TurnRequest(
                "run-1", "grant-1", 3, 2, "d" * 64, MODEL, Receipt(2, "e" * 64), HEAD
            ),
            {wire.MODEL: wire.model_record(MODEL)},
        ),
        wire.decode_request,
    ),
    "reply": (
        wire.encode_reply(
            TurnReply(Verdict.DONE, "grant-1", 3, 2, MODEL, head=Head(7, "c" * 64))
        ),
        wire.decode_reply,
    ),
    "close": (
        wire.encode_close(Close("run-1", "grant-1", Receipt(4, "f" * 64), HEAD)),
        wire.decode_close,
    ),
}


def message_with(content: RecordDict) -> Message:
    metadata = Metadata(1, "", 1, 2, "", "1", 1.0, 60.0, "train")
    message = make_message(metadata, content=content)
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def on_flower(content: RecordDict, decode: Callable[[RecordDict], Any]) -> Case:
    """A message as the node and the hub build it: one of its objects is spoilt."""
    message = message_with(content)
    objects = {n: o.deflate() for n, o in get_all_nested_objects(message).items()}
    names = list(objects)
    whole = b"".join(objects.values())
    lengths = [len(objects[name]) for name in names]

    def build(data: bytes) -> None:
        parts: Contents = {}
        start = 0
        for name, length in zip(names, lengths, strict=True):
            last = name == names[-1]
            parts[name] = data[start:] if last else data[start : start + length]
            start += length
        with contextlib.suppress(ValueError):  # what the node takes for no message
            built = _inflate(message.object_id, parts)
            if built.has_content():
                decode(built.content)

    return whole, build


def at_the_fleet(path: str, body: Callable[[int], Any]) -> Case:
    """A request to the hub, past TLS, from a site that is who it says it is."""
    gate = UploadGate(32 << 20, 64 << 20)
    fleet = Fleet(Links(gate), gate, lambda _site: b"{}")
    private, public = generate_key_pairs()
    key = public_key_to_bytes(public)
    fleet.admit("alder", key)
    (node_id,) = fleet.names()
    loop = asyncio.Runner()  # one for all: starting one takes as long as an answer

    def post(path: str, data: bytes) -> int:
        stamp = now().isoformat()
        headers = {
            FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(key).decode(),
            FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(
                sign_message(private, stamp.encode("ascii"))
            ).decode(),
            TIMESTAMP_HEADER: stamp,
            "guilder-upload-bytes": "100000",
        }
        headers = {name.lower(): value for name, value in headers.items()}
        pieces = [data[:100], data[100:]]
        request = Request("alder", key, FLEET + path, headers, pieces)
        return loop.run(fleet.answer(request)).status

    activation = fleet_pb2.ActivateNodeRequest(public_key=key, heartbeat_interval=15)
    assert post("activate-node", activation.SerializeToString()) == 200

    def send(data: bytes) -> None:
        assert post(path, data) in {200, 400, 401, 403, 404, 409, 413, 503}

    return body(node_id).SerializeToString(), send


def pushed(node_id: int) -> Any:
    reply = message_with(CONTENTS["reply"][0])
    return fleet_pb2.PushMessagesRequest(
        node=FlowerNode(node_id=node_id),
        messages_list=[message_to_proto(remove_content_from_message(reply))],
        message_object_trees=[get_object_tree(reply)],
    )


def stored(node_id: int) -> Any:
    return message_pb2.PushObjectRequest(
        node=FlowerNode(node_id=node_id),
        run_id=1,
        object_id="a" * 64,
        object_content=b"x" * 300,
        session_id="s",
    )


def protobuf(good: Any) -> Case:
    def parse(data: bytes) -> None:
        with contextlib.suppress(DecodeError):
            type(good).FromString(data)

    return good.SerializeToString(), parse


def told(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert isinstance(telling.unpack(data), GuilderError)


def an_order() -> bytes:
    return Order.sign(
        SigningKey.generate(),
        "budget",
        site="bank-a",
        serial=1_700_000_000_000,
        issued="2026-01-31T12:00:00Z",
        name="patients",
        epsilon=3,
        delta=1e-5,
        datasets=["scans"],
        unit="record",
        period={"days": 365, "epsilon": 1.5},
    ).to_json()


def an_update(compression: Any, num_measured: int) -> Case:
    """What the server does with an update before it is folded."""
    update = unpack(MODEL, SHAPES)
    measured = np.ones(num_measured, np.float32) if num_measured else None

    def read(data: bytes) -> None:
        aggregate.check(unpack_update(data, SHAPES, compression, num_measured))

    return pack_update(update, compression, measured), read


def a_witness(data: bytes) -> None:
    with contextlib.suppress(ValueError):  # what the client takes for no answer
        witnessing.read(data)


def node_of(number: int) -> Any:
    return FlowerNode(node_id=number)


FLEET_CALLS: dict[str, Callable[[int], Any]] = {
    "activate-node": lambda _: fleet_pb2.ActivateNodeRequest(
        public_key=b"k" * 90, heartbeat_interval=15
    ),
    "deactivate-node": lambda n: fleet_pb2.DeactivateNodeRequest(node_id=n),
    "send-node-heartbeat": lambda n: heartbeat_pb2.SendNodeHeartbeatRequest(
        node=node_of(n), heartbeat_interval=15
    ),
    "pull-messages": lambda n: fleet_pb2.PullMessagesRequest(node=node_of(n)),
    "pull-object": lambda n: message_pb2.PullObjectRequest(
        node=node_of(n), run_id=1, object_id="a" * 64
    ),
    "confirm-message-received": lambda n: message_pb2.ConfirmMessageReceivedRequest(
        node=node_of(n), run_id=1, message_object_id="a" * 64
    ),
}
CASES: dict[str, Callable[[], Case]] = {
    **{
        name: lambda both=both: on_flower(*both)  # type: ignore[misc]
        for name, both in CONTENTS.items()
    },
    **{
        path: lambda path=path, body=body: at_the_fleet(path, body)  # type: ignore[misc]
        for path, body in FLEET_CALLS.items()
    },
    "update in 8 bits": lambda: an_update("int8", 0),
    "update in 8 bits, and figures": lambda: an_update("int8", 7),
    "update and figures": lambda: an_update(None, 7),
    "witness": lambda: (witnessing.write(HEAD), a_witness),
    "request to join": lambda: (
        authority.make_request(generate_private_key(SECP256R1()), "bank-a", "ab" * 32),
        authority.read_request,
    ),
    "model": lambda: (MODEL, lambda data: unpack(data, SHAPES)),
    "study": lambda: (STUDY.canonical(), Study.from_canonical),
    "order": lambda: (an_order(), Order.parse),
    "announcement": lambda: at_the_fleet("push-messages", pushed),
    "object": lambda: at_the_fleet("push-object", stored),
    "submission": lambda: protobuf(
        control_pb2.SubmitRequest(study=STUDY.canonical(), sites=["a", "b"])
    ),
    "error": lambda: (
        control_pb2.Error(id="GLD-R010", what="what", fix="f").SerializeToString(),
        told,
    ),
}


def mutated(good: bytes, chance: random.Random) -> bytes:
    """One to four of: bits, bytes, numbers, cuts, doublings, strange tails."""
    data = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) + 1)
        kind = chance.randrange(7)
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[place : place + 1] = chance.randbytes(chance.randint(0, 9))
        elif kind == 2:
            del data[place : place + chance.randint(1, 40)]
        elif kind == 3:
            data[place:place] = data[: chance.randint(1, 60)]
        elif kind == 4:
            data[place : place + 8] = b"\xff" * 8
        elif kind == 5:
            data[place:place] = chance.choice([b"1e999", b"NaN", b"[" * 500, b"-0"])
        else:
            data[place:] = chance.randbytes(chance.randint(0, 30))
    return bytes(data)


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No log is kept: pytest would hold a record of each refusal in memory."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def spoil(decoder: str, num: int, seed: int) -> None:
    good, decode = CASES[decoder]()
    decode(good)
    chance = random.Random(seed)
    before = 0
    for number in range(num):
        if number == num // 10:  # what is kept once, for all messages, is there by now
            before = resident_bytes()
        data = mutated(good, chance)
        try:
            decode(data)
        except GuilderError:
            continue
        except Exception as error:
            error.add_note(f"seed {seed}, message {number}: {data[:200]!r}")
            raise

    assert resident_bytes() - before < MAX_GROWTH


@pytest.mark.brief
@pytest.mark.parametrize("decoder", CASES)
def test_a_thousand_spoilt_messages_are_refused_by_name(decoder: str) -> None:
    spoil(decoder, 1_000, seed=1)


@pytest.mark.slow(minutes=0.3)
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("decoder", CASES)
def test_a_hundred_thousand_spoilt_messages_are_refused_by_name(decoder: str) -> None:
    seed = secrets.randbelow(2**31)
    print(f"seed {seed}")

    spoil(decoder, 100_000, seed=seed)
