"""Messages as Flower records, and what a forged one does."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from guilder_shared import wire
from guilder_shared.errors import GuilderError, IntegrityError
from guilder_shared.messages import (
    Answer,
    Close,
    Offer,
    Plan,
    Receipt,
    TurnReply,
    TurnRequest,
    Verdict,
    pack,
    unpack,
)

MODEL = pack({"w": np.arange(6, dtype=np.float32).reshape(2, 3)})
REQUEST = TurnRequest("run-1", "grant-1", 3, 2, "d" * 64, MODEL, Receipt(2, "e" * 64))
REPLY = TurnReply(Verdict.DONE, "grant-1", 3, 2, MODEL)
SHAPES = {"w": (2, 3)}


def encoded_request() -> RecordDict:
    return wire.encode_request(REQUEST, {wire.MODEL: wire.model_record(REQUEST.model)})


@pytest.mark.parametrize("measuring", [None, 6.5])
@pytest.mark.parametrize("multiplier", [None, 0.7593])
def test_an_offer_survives_the_wire(
    multiplier: float | None, measuring: float | None
) -> None:
    offer = Offer("run-1", b'{"schema":1}', Plan(multiplier, 12, 1e-3, measuring))

    sent = wire.encode_offer(offer)

    assert wire.decode_offer(sent) == offer
    named = "measuring_noise" in sent.config_records[wire.FIELDS]
    assert named is (measuring is not None)  # older sites know no such field


def test_every_other_message_survives_the_wire() -> None:
    answer = Answer(Verdict.REFUSED_BY_BUDGET, "bank-a", reason="GLD-B003 …")
    close = Close("run-1", "grant-1", Receipt(4, "f" * 64))

    assert wire.decode_answer(wire.encode_answer(answer)) == answer
    assert wire.decode_request(encoded_request()) == REQUEST
    assert wire.decode_reply(wire.encode_reply(REPLY)) == REPLY
    assert wire.decode_close(wire.encode_close(close)) == close


def test_the_fingerprint_covers_the_model_and_not_the_receipt() -> None:
    same = TurnRequest(*[getattr(REQUEST, n) for n in list(vars(REQUEST))[:-1]])
    other = TurnRequest("run-1", "grant-1", 3, 2, "d" * 64, MODEL[:-1] + b"\x00")

    assert same.fingerprint() == REQUEST.fingerprint()
    assert other.fingerprint() != REQUEST.fingerprint()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("turn_no", -1),
        ("turn_no", "3"),
        ("turn_no", 3.0),
        ("round_no", True),
        ("grant_id", b"grant-1"),
        ("study_digest", "x" * (wire.MAX_TEXT_BYTES + 1)),
        ("receipt_turn_no", [1]),
        ("turn_no", 2**53),
        ("run_id", "r" * 201),
        ("run_id", "run-1\n2026-01-01 all is well"),
        ("grant_id", "\x1b[2J"),
        ("receipt_sha256", "\u202eabc"),
    ],
)
def test_a_forged_field_is_refused(field: str, value: Any) -> None:
    content = encoded_request()
    content.config_records[wire.FIELDS][field] = value

    with pytest.raises(IntegrityError, match=field):
        wire.decode_request(content)


def test_a_site_cannot_claim_more_rows_than_a_site_file_allows() -> None:
    forged = Answer(Verdict.ACCEPTED, "a", "grant-1", 10**12 + 1)

    with pytest.raises(IntegrityError, match="public_size"):
        wire.decode_answer(wire.encode_answer(forged))


@pytest.mark.parametrize(
    "reason",
    [
        "GLD-S001 no\nround 7 auc 0.99",
        "\x1b[2J\x1b]0;owned\x07",
        "\u202etxt.exe\u2066",
        "\ud800",
        "x" * (wire.MAX_TEXT_BYTES - 1),
    ],
)
def test_a_reason_of_the_other_side_is_one_short_line_without_controls(
    reason: str,
) -> None:
    answer = Answer(Verdict.REFUSED_BY_POLICY, "a", reason=reason)
    reply = TurnReply(Verdict.REFUSED_BY_POLICY, "grant-1", 1, 1, reason=reason)

    answered = wire.decode_answer(wire.encode_answer(answer)).reason
    replied = wire.decode_reply(wire.encode_reply(reply)).reason

    assert answered == replied
    assert answered.isprintable()
    assert len(answered) <= 1000


FIRST_FIELDS = set(encoded_request().config_records[wire.FIELDS]) - {"witness_no"}


@pytest.mark.parametrize("field", sorted(FIRST_FIELDS))
def test_a_missing_field_is_refused(field: str) -> None:
    content = encoded_request()
    del content.config_records[wire.FIELDS][field]

    with pytest.raises(IntegrityError, match=r"GLD-I044|the message's field"):
        wire.decode_request(content)


@pytest.mark.parametrize(
    "array",
    [
        Array(np.zeros(5, np.float32)),
        Array(np.zeros((2, 3), np.uint8)),
        Array("uint8", (2**40,), "numpy.ndarray", b"short"),
        Array("uint8", (5,), "pickle", b"\x80\x04."),
        Array("uint8", (5,), "numpy.ndarray", b"x" * 100_000),
        Array("uint8", (5,), "numpy.ndarray", b"no header"),
        Array("object", (1,), "numpy.ndarray", Array(np.zeros(1)).data),
    ],
)
def test_a_forged_model_is_refused_before_it_is_decoded(array: Array) -> None:
    content = encoded_request()
    content[wire.MODEL] = ArrayRecord({"bytes": array})

    with pytest.raises(IntegrityError, match="model"):
        wire.decode_request(content)


def test_a_message_of_somebody_else_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not one of Guilder's"):
        wire.decode_reply(RecordDict({"config": ConfigRecord({"a": 1})}))


@given(st.binary(max_size=2000))
def test_arbitrary_bytes_are_never_a_model(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        unpack(data, SHAPES)


@given(st.integers(0, len(MODEL) - 1), st.integers(1, 255))
def test_a_flipped_byte_gives_a_model_of_the_same_kind_or_an_error(
    place: int, flip: int
) -> None:
    data = bytearray(MODEL)
    data[place] ^= flip
    try:
        weights = unpack(bytes(data), SHAPES)
    except GuilderError:
        return
    assert weights["w"].shape == (2, 3)
    assert np.isfinite(weights["w"]).all()


def test_a_model_that_is_too_large_is_refused_by_its_length() -> None:
    with pytest.raises(IntegrityError, match="at most"):
        unpack(b"\x00" * 300_000, SHAPES)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(IntegrityError, match="'w' is not finite"):
        unpack(pack({"w": np.full((2, 3), value, np.float32)}), SHAPES)


@pytest.mark.parametrize("shape", [b"(20,i, }", b"(20, (", b"(20,)\x00"])
def test_a_spoilt_array_header_is_no_error_of_python(shape: bytes) -> None:
    content = wire.encode_reply(REPLY)
    array = content.array_records["model"]["bytes"]
    data = bytes(array.data)
    start = data.index(b"(")
    spoilt = data[:start] + shape + data[start + len(shape) :]
    array = Array(array.dtype, array.shape, array.stype, spoilt)
    content["model"] = ArrayRecord({"bytes": array})

    with pytest.raises(IntegrityError) as caught:
        wire.decode_reply(content)

    assert caught.value.error_id == "GLD-I043"
