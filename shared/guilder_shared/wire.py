"""Messages ⇄ Flower records: with `pieces`, the one place in shared that knows Flower.

A message is one ConfigRecord (what differs by site) and at most one ArrayRecord
holding the model as a single uint8 array, because every Flower object is a signed
HTTPS request of its own. Everything is checked before it is decoded.
"""

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from guilder_shared import pieces
from guilder_shared.errors import IntegrityError
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
)
from guilder_shared.plain_text import is_name, one_line
from guilder_shared.tensors import Buffer

OFFER: Final = "query.offer"
CLOSE: Final = "query.close"
TURN: Final = "train"
FIELDS: Final = "guilder"
MODEL: Final = "model"
CONTROL: Final = "control"
MAX_MODEL_BYTES: Final = 2**31  # 2 GiB
MAX_TEXT_BYTES: Final = 2**22  # 4 MiB: a study with 10,000 columns is below 1 MiB
LARGEST_PUBLIC_SIZE: Final = 10**12  # as in site.toml
LONGEST_NPY_HEADER: Final = 1024  # far above what one dimension takes
MOST: Final = 2**53 - 1  # of any count: exact in JSON, and fits SQLite
UNPROTECTED: Final = -1.0  # noise_multiplier on the wire where there is no noise


def model_record(model: Buffer | Sequence[Buffer]) -> ArrayRecord:
    """The model as one uint8 array; one record serves all sites of a round.

    Args:
        model: Its bytes, in one piece or several; they are copied once.
    """
    parts = [model] if isinstance(model, Buffer) else model
    array = pieces.array_of([_npy_header(sum(map(len, parts))), *parts])
    record = ArrayRecord()  # given arrays, it would make new ones
    record["bytes"] = array
    return record


def _npy_header(num_bytes: int) -> bytes:
    header = BytesIO()
    table = {"descr": "|u1", "fortran_order": False, "shape": (num_bytes,)}
    np.lib.format.write_array_header_1_0(header, table)
    return header.getvalue()


def encode_offer(offer: Offer) -> RecordDict:
    """An offer as records."""
    multiplier = offer.plan.noise_multiplier
    return _records(
        run_id=offer.run_id,
        study=offer.study,
        noise_multiplier=UNPROTECTED if multiplier is None else multiplier,
        num_turns=offer.plan.num_turns,
        sensitivity_slack=offer.plan.sensitivity_slack,
        **_measuring_fields(offer.plan),
        **_head_fields("witness", offer.witness),
    )


def decode_offer(content: RecordDict) -> Offer:
    """The offer in `content`; IntegrityError if it is not one."""
    fields = _Fields(content)
    multiplier = fields.number("noise_multiplier")
    plan = Plan(
        noise_multiplier=None if multiplier == UNPROTECTED else multiplier,
        num_turns=fields.count("num_turns"),
        sensitivity_slack=fields.number("sensitivity_slack"),
        measuring_noise=fields.optional_number("measuring_noise"),
    )
    witness = fields.head("witness")
    return Offer(fields.name("run_id"), fields.bytes("study"), plan, witness)


def encode_answer(answer: Answer) -> RecordDict:
    """An answer as records."""
    return _records(
        verdict=answer.verdict.value,
        site=answer.site,
        grant_id=answer.grant_id,
        public_size=answer.public_size,
        reason=answer.reason,
    )


def decode_answer(content: RecordDict) -> Answer:
    """The answer in `content`; IntegrityError if it is not one."""
    fields = _Fields(content)
    return Answer(
        verdict=fields.verdict(),
        site=fields.name("site"),
        grant_id=fields.name("grant_id"),
        public_size=fields.count("public_size", most=LARGEST_PUBLIC_SIZE),
        reason=one_line(fields.text("reason")),
    )


def encode_request(
    request: TurnRequest, records: Mapping[str, ArrayRecord]
) -> RecordDict:
    """A turn's request; `records` are `model_record`s under MODEL, and CONTROL if any.

    Made once, they serve all sites of a round.
    """
    base = {"control_base": request.control_base} if CONTROL in records else {}
    content = _records(
        run_id=request.run_id,
        grant_id=request.grant_id,
        turn_no=request.turn_no,
        round_no=request.round_no,
        study_digest=request.study_digest,
        **_receipt_fields(request.receipt),
        **_head_fields("witness", request.witness),
        **base,
    )
    for name, record in records.items():
        content[name] = record
    return content


def decode_request(content: RecordDict) -> TurnRequest:
    """The request in `content`; IntegrityError if it is not one."""
    fields = _Fields(content)
    has_control = CONTROL in content
    return TurnRequest(
        run_id=fields.name("run_id"),
        grant_id=fields.name("grant_id"),
        turn_no=fields.count("turn_no"),
        round_no=fields.count("round_no"),
        study_digest=fields.name("study_digest"),
        model=_model_bytes(content),
        receipt=fields.receipt(),
        witness=fields.head("witness"),
        control=_model_bytes(content, CONTROL) if has_control else b"",
        control_base=fields.count("control_base") if has_control else 0,
    )


def encode_reply(reply: TurnReply) -> RecordDict:
    """A turn's reply as records."""
    content = _records(
        verdict=reply.verdict.value,
        grant_id=reply.grant_id,
        turn_no=reply.turn_no,
        round_no=reply.round_no,
        reason=reply.reason,
        **_head_fields("head", reply.head),
    )
    if reply.update:
        content[MODEL] = model_record(reply.update)
    return content


def decode_reply(content: RecordDict) -> TurnReply:
    """The reply in `content`; IntegrityError if it is not one."""
    fields = _Fields(content)
    verdict = fields.verdict()
    return TurnReply(
        verdict=verdict,
        grant_id=fields.name("grant_id"),
        turn_no=fields.count("turn_no"),
        round_no=fields.count("round_no"),
        update=_model_bytes(content) if verdict == Verdict.DONE else b"",
        reason=one_line(fields.text("reason")),
        head=fields.head("head"),
    )


def encode_close(close: Close) -> RecordDict:
    """The end of a run as records."""
    return _records(
        run_id=close.run_id,
        grant_id=close.grant_id,
        **_receipt_fields(close.receipt),
        **_head_fields("witness", close.witness),
    )


def decode_close(content: RecordDict) -> Close:
    """The close in `content`; IntegrityError if it is not one."""
    fields = _Fields(content)
    names = (fields.name("run_id"), fields.name("grant_id"))
    return Close(*names, fields.receipt(), fields.head("witness"))


def _records(**fields: Any) -> RecordDict:
    return RecordDict({FIELDS: ConfigRecord(fields)})


def _measuring_fields(plan: Plan) -> dict[str, Any]:
    told = plan.measuring_noise
    return {} if told is None else {"measuring_noise": told}


def _receipt_fields(receipt: Receipt | None) -> dict[str, Any]:
    if receipt is None:
        return {"receipt_turn_no": 0, "receipt_sha256": ""}
    return {"receipt_turn_no": receipt.turn_no, "receipt_sha256": receipt.sha256}


def _head_fields(name: str, head: Head | None) -> dict[str, Any]:
    if head is None:
        return {f"{name}_no": 0, name: ""}
    told: dict[str, Any] = {f"{name}_no": head.head_no, name: head.commitment}
    if head.signature:
        told |= {f"{name}_key": head.server_key, f"{name}_signature": head.signature}
    return told


def _model_bytes(content: RecordDict, name: str = MODEL) -> memoryview:
    """The model's bytes; dtype, rank and size are checked before they are looked at.

    They are a view of the message's own.
    """
    # `array_records` is not asked: its answer is a cycle that keeps the model alive.
    record = content.get(name)
    array = record.get("bytes") if isinstance(record, ArrayRecord) else None
    if array is None:
        raise IntegrityError("GLD-I043", "the message holds no model")
    num_bytes = array.shape[0] if len(array.shape) == 1 else -1
    if (
        array.dtype != "uint8"
        or array.stype != "numpy.ndarray"
        or not 0 <= num_bytes <= MAX_MODEL_BYTES
        or len(array.data) > num_bytes + LONGEST_NPY_HEADER
    ):
        raise IntegrityError("GLD-I043", "the message's model is not one byte array")
    view = memoryview(array.data).toreadonly()
    if _npy_shape(view) != (num_bytes,) or len(view) < num_bytes:
        raise IntegrityError("GLD-I043", "the message's model cannot be read")
    return view[len(view) - num_bytes :]


def _npy_shape(view: memoryview) -> tuple[int, ...] | None:
    """The shape of an array of bytes as NumPy writes it; None if it is none."""
    head = BytesIO(view[:LONGEST_NPY_HEADER])
    try:
        if np.lib.format.read_magic(head) != (1, 0):
            return None
        shape, _, dtype = np.lib.format.read_array_header_1_0(head)
    except Exception:  # NumPy's header is Python text, and fails as Python does
        return None
    is_whole = head.tell() + math.prod(shape) == len(view)
    return tuple(shape) if is_whole and dtype == np.uint8 else None


class _Fields:
    """Typed access to the one ConfigRecord; a missing or mistyped field is forged."""

    def __init__(self, content: RecordDict) -> None:
        record = content.get(FIELDS)
        if not isinstance(record, ConfigRecord):
            raise IntegrityError("GLD-I044", "the message is not one of Guilder's")
        self._record: Mapping[str, Any] = record

    def _get(self, name: str, kind: type) -> Any:
        value: Any = self._record.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise IntegrityError("GLD-I044", f"the message's field {name!r} is wrong")
        if isinstance(value, str | bytes) and len(value) > MAX_TEXT_BYTES:
            raise IntegrityError(
                "GLD-I044", f"the message's field {name!r} is too long"
            )
        return value

    def text(self, name: str) -> str:
        return str(self._get(name, str))

    def name(self, name: str) -> str:
        value = self.text(name)
        if not is_name(value):
            raise IntegrityError("GLD-I044", f"the message's field {name!r} is wrong")
        return value

    def bytes(self, name: str) -> bytes:
        value: bytes = self._get(name, bytes)
        return value

    def number(self, name: str) -> float:
        value = float(self._get(name, float))
        if not np.isfinite(value):
            raise IntegrityError("GLD-I044", f"the message's field {name!r} is wrong")
        return value

    def optional_number(self, name: str) -> float | None:
        """A field that came after the first version; None where it is missing."""
        return self.number(name) if name in self._record else None

    def count(self, name: str, most: int = MOST) -> int:
        value = int(self._get(name, int))
        if not 0 <= value <= most:
            raise IntegrityError("GLD-I044", f"the message's field {name!r} is wrong")
        return value

    def verdict(self) -> Verdict:
        try:
            return Verdict(self.text("verdict"))
        except ValueError as error:
            raise IntegrityError("GLD-I044", "the message's verdict is none") from error

    def head(self, name: str) -> Head | None:
        """A commitment; none at all from a peer of a version before there were any."""
        if f"{name}_no" not in self._record:
            return None
        head_no, commitment = self.count(f"{name}_no"), self.name(name)
        if not head_no:
            return None
        if f"{name}_signature" not in self._record:
            return Head(head_no, commitment)
        signed = (self.name(f"{name}_key"), self.name(f"{name}_signature"))
        return Head(head_no, commitment, *signed)

    def receipt(self) -> Receipt | None:
        turn_no = self.count("receipt_turn_no")
        return Receipt(turn_no, self.name("receipt_sha256")) if turn_no else None
