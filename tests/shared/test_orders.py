"""What an officer signs is read back whole, or not at all."""

import json
from typing import Any

import pytest

from guilder_shared.errors import BudgetSpent
from guilder_shared.identity import SigningKey
from guilder_shared.orders import TERMS, Order

KEY = SigningKey.generate()
HEADER = {"site": "bank-a", "serial": 1_700_000_000_000}
WHEN = "2026-01-31T12:00:00Z"
KINDS: dict[str, dict[str, Any]] = {
    "budget": {
        "name": "patients",
        "epsilon": 3,
        "delta": 1e-5,
        "datasets": ["scans"],
        "unit": "record",
        "period": {"days": 365, "epsilon": 1.5},
    },
    "withdraw": {"name": "patients"},
    "public-size": {"dataset": "scans", "rows": 500, "persons": None},
    "rule": {
        "name": "small",
        "recipes": ["tabular-classification"],
        "datasets": [],
        "units": ["record", "person"],
        "largest_epsilon": 1,
        "largest_delta": 1e-6,
        "smallest_cohort": 3,
        "allow_unprotected": False,
    },
    "approve": {
        "study_digest": "d" * 64,
        "study_name": "risk",
        "epsilon": 1.0,
        "delta": 1e-6,
    },
    "revoke": {"order_id": "e" * 64},
    "officer": {"public_key": "f" * 64},
    "excuse": {"server": "https://server"},
    "gap": {
        "server": "https://server",
        "head_no": 7,
        "commitment": "c" * 64,
        "budget": "patients",
        "epsilon": 2.5,
        "delta": 1e-6,
    },
}


def order(say: str, **changes: Any) -> Order:
    expires = WHEN if say in ("rule", "approve", "excuse") else None
    given = {"issued": WHEN, "expires": expires, **HEADER, **KINDS[say], **changes}
    return Order.sign(KEY, say, **given)


def refused(data: bytes) -> str:
    with pytest.raises(BudgetSpent) as raised:
        Order.parse(data)
    return raised.value.error_id


def test_every_kind_has_an_example_here() -> None:
    assert KINDS.keys() == TERMS.keys()


@pytest.mark.parametrize("say", KINDS)
def test_an_order_is_read_back_as_it_was_signed(say: str) -> None:
    made = order(say)

    read = Order.parse(made.to_json())

    assert read == made
    assert read.order_id == made.order_id
    assert read.is_signed_by(KEY.public_hex)
    assert not read.is_signed_by(SigningKey.generate().public_hex)


@pytest.mark.parametrize("say", KINDS)
def test_layout_does_not_matter_but_every_value_does(say: str) -> None:
    line = json.loads(order(say).to_json())
    by_hand = Order.parse(json.dumps(line, indent=2).encode())
    later = Order.parse(json.dumps({**line, "serial": line["serial"] + 1}).encode())

    assert by_hand.is_signed_by(KEY.public_hex)
    assert not later.is_signed_by(KEY.public_hex)
    assert later.order_id != by_hand.order_id


@pytest.mark.parametrize("say", KINDS)
def test_a_member_too_few_or_too_many_is_refused(say: str) -> None:
    line = json.loads(order(say).to_json())
    for name in line:
        less = {key: value for key, value in line.items() if key != name}
        assert refused(json.dumps(less).encode()) == "GLD-B014"

    assert refused(json.dumps({**line, "note": "please"}).encode()) == "GLD-B014"


@pytest.mark.parametrize("say", KINDS)
@pytest.mark.parametrize("wrong", [-1, 0.5, 10**400, "\ud800", {}, [[]], float("nan")])
def test_no_member_takes_what_it_cannot_be(say: str, wrong: Any) -> None:
    line = json.loads(order(say).to_json())
    fits = {"delta", "epsilon", "largest_delta", "largest_epsilon"}
    for name in line.keys() - (fits if wrong == 0.5 else set()):
        told = json.dumps({**line, name: wrong}).encode()
        if name != "signature" or not isinstance(wrong, str):
            assert refused(told) == "GLD-B014", name


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_order_is_refused(data: bytes) -> None:
    assert refused(data) == "GLD-B014"


def test_a_signature_that_is_no_signature_was_made_by_nobody() -> None:
    line = json.loads(order("withdraw").to_json())

    found = Order.parse(json.dumps({**line, "signature": "xyz"}).encode())

    assert not found.is_signed_by(KEY.public_hex)


def test_a_standing_rule_must_expire() -> None:
    with pytest.raises(BudgetSpent, match="must expire"):
        order("rule", expires=None)


def test_only_a_permission_expires() -> None:
    assert order("approve", expires=None).expires is None
    with pytest.raises(BudgetSpent, match="expires"):
        order("budget", expires=WHEN)


def test_a_budget_and_its_withdrawal_are_one_subject() -> None:
    assert order("budget").subject == order("withdraw").subject
    assert order("budget").subject != order("budget", name="staff").subject
