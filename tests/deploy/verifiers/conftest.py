"""A ledger of 200 entries with every kind of entry, its report and export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from guilder_shared import reports, witnessing
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Head
from guilder_shared.officer import Officer
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.reports.export import export

NOON = 1_800_000_000.0
SERVER = "https://s"
SAMPLED = {
    "event": "self-composed",
    "count": 5,
    "of": {
        "event": "poisson-sampled",
        "sampling_probability": 0.02,
        "of": {"event": "gaussian", "noise_multiplier": 1.1},
    },
}
EVENTS = [SAMPLED, {"event": "gaussian", "noise_multiplier": 60.0}]


def key_of(number: int) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


KEY, OFFICERS_KEY, SERVERS_KEY = key_of(1), key_of(2), key_of(3)


@dataclass(frozen=True)
class Written:
    """A site's files on a disk, and the ledger they came from."""

    report: Path
    ledger: Path  # an export
    older: Path  # an export of one entry less
    key: SigningKey = KEY
    officers_key: SigningKey = OFFICERS_KEY


def fill(ledger: Ledger, number: int, event: dict[str, Any], unit: str) -> None:
    grant = ledger.reserve(
        run_id=f"run-{number}",
        server=SERVER,
        study_digest=f"{number + 1:064x}",
        study_name=f"study-{number}",
        dataset="d",
        recipe="r",
        unit=unit,
        cohort=2,
        study_epsilon=1.9,
        study_delta=1e-6,
        turn_event=event,
        num_turns=40,
        meta={},
    ).grant_id
    for turn_no in range(1, 34):
        ledger.spend(grant, turn_no, f"{turn_no:064x}")
        if turn_no == 1:
            ledger.cohort(grant, "b" * 64)
        if turn_no == 2:
            ledger.spend(grant, turn_no, f"{turn_no:064x}")
        ledger.seal(grant, turn_no, f"{turn_no + 99:064x}")
        head = ledger.heads(SERVER)[-1]
        told = Head(head.head_no, head.commitment)
        signed = witnessing.signed(told, "bank-a", SERVERS_KEY)
        word = witnessing.as_body(signed) if turn_no % 4 == 1 else None
        ledger.receipt(grant, turn_no, f"{turn_no + 99:064x}", word)
    if number:
        ledger.close(grant)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Of a ledger of over 200 entries with nearly every kind of entry and order."""
    times = iter(range(10_000))
    officer = Officer(OFFICERS_KEY, site="bank-a", clock=lambda: NOON + next(times))
    named: Any = {"site": "bank-a", "officer": officer.public_hex}
    with Ledger.open(None, KEY, clock=lambda: NOON + next(times), **named) as ledger:
        rule = officer.rule("r", recipes=["r"], largest_epsilon=2, largest_delta=1e-5)
        lost = officer.acknowledge(
            SERVER, 3, "c" * 64, budget="people", epsilon=0.5, delta=1e-6
        )
        for order in (
            officer.budget("people", 9.0, 1e-4, ["d"], None, (30, 8.0)),
            officer.budget("old", 1.0, 1e-4, ["e"]),
            officer.public_size("d", 100, 90),
            rule,
            officer.withdraw("old"),
            officer.excuse("https://gone"),
            officer.excuse("https://away", days=2),
            officer.approve("f" * 64, "other", epsilon=1.0, delta=1e-6),
            lost,
        ):
            ledger.admit(order)
        for number, event in enumerate(EVENTS):
            fill(ledger, number, event, ("record", "person")[number])
        ledger.exclude("d", "e" * 64, in_force=True)
        ledger.forgot(SERVER, 3)
        folder = tmp_path_factory.mktemp("written")
        older = folder / "older.jsonl"
        older.write_bytes(export(ledger))
        ledger.admit(officer.revoke(rule.order_id))
        newest = folder / "ledger.jsonl"
        newest.write_bytes(export(ledger))
        assert len(ledger.entries()) >= 200
        return Written(reports.write(ledger, folder), newest, older)
