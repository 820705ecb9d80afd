"""Works a ledger on a disk that fails at chosen calls; prints what it found as JSON."""

import ctypes
import errno
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guilder_shared.errors import BudgetSpent, IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy.ledger import Ledger

KEY = SigningKey.generate()
OFFICER = Officer(SigningKey.generate(), site="bank-a")
ORDERS = [
    OFFICER.budget("patients", 3.0, 1e-5, ["scans"]),
    OFFICER.rule("any", recipes=["r"], largest_epsilon=100, largest_delta=0.5),
]
CALLS = {"write": 1, "sync": 2}
NUM_TURNS = 4
Claims = set[tuple[str, int]]


def main(folder: Path, last_call: int, stride: int) -> None:
    """Fail each call once and for good, with each error, at every `stride`-th call."""
    disk = ctypes.CDLL(None)
    found: dict[str, Any] = {"scenarios": 0, "hit": 0, "wrong": []}
    errors = (errno.ENOSPC, errno.EIO)
    numbers = range(1, last_call + 1, stride)
    for number, (call, error, after, stays) in enumerate(
        itertools.product(CALLS, errors, numbers, (0, 1))
    ):
        path = folder / str(number) / "ledger.db"
        path.parent.mkdir()
        disk.faulty_arm(CALLS[call], error, after, stays)
        claims, strange = live(path)
        hits = disk.faulty_hits()
        disk.faulty_arm(0, 0, 0, 0)
        found["scenarios"] += 1
        found["hit"] += bool(hits)
        name = f"{call} {errno.errorcode[error]} after {after} stays {stays}"
        wrong = strange + (check(path, claims) if claims else [])
        found["wrong"] += [f"{name}: {each}" for each in wrong]
    print(json.dumps(found))


def live(path: Path) -> tuple[Claims, list[str]]:
    """A study from grant to end, whatever fails; what the ledger confirmed."""
    claims: Claims = set()
    strange: list[str] = []

    def tried(claim: tuple[str, int], act: Callable[[], object]) -> None:
        try:
            if act() is not False:
                claims.add(claim)
        except (IntegrityError, BudgetSpent):
            pass
        except BaseException as error:
            strange.append(f"{claim} raised {type(error).__name__}: {error}")

    try:
        ledger = open_ledger(path)
    except IntegrityError:
        return claims, strange
    tried(("reserve", 0), lambda: reserve(ledger))
    for turn_no in range(1, NUM_TURNS + 1):
        name = f"h{turn_no}", f"s{turn_no}"
        tried(("spend", turn_no), lambda n=turn_no, h=name[0]: ledger.spend(ID, n, h))  # type: ignore[misc]
        tried(("seal", turn_no), lambda n=turn_no, s=name[1]: ledger.seal(ID, n, s))  # type: ignore[misc]
        tried(
            ("receipt", turn_no),
            lambda n=turn_no, s=name[1]: ledger.receipt(ID, n, s),  # type: ignore[misc]
        )
    tried(("close", 0), lambda: ledger.close(ID))
    tried(("shut", 0), ledger.shut)
    claims.discard(("shut", 0))
    return claims, strange


def check(path: Path, claims: Claims) -> list[str]:
    """What a sound disk finds afterwards: all that was confirmed, and it works on."""
    try:
        with open_ledger(path) as ledger:
            grant = reserve(ledger)
            held = {("reserve", 0)} | ({("close", 0)} if grant.closed else set())
            for turn_no, turn in grant.turns.items():
                held.add(("spend", turn_no))
                held |= {("seal", turn_no)} if turn.sealed_sha256 else set()
                held |= {("receipt", turn_no)} if turn.receipt else set()
            lost = sorted(claims - held)
            if not grant.closed:
                last = grant.newest_turn() + 1
                if last <= NUM_TURNS:
                    ledger.spend(ID, last, f"h{last}")
            left = ledger.totals()["patients"].left_epsilon
            wrong = [f"lost {claim}" for claim in lost]
            return wrong if left == 2 else [*wrong, f"left {left}"]
    except Exception as error:
        return [f"afterwards {type(error).__name__}: {error}"]


ID = "a" * 32


def open_ledger(path: Path) -> Ledger:
    return Ledger.open(
        path, KEY, site="bank-a", officer=OFFICER.public_hex, orders=ORDERS
    )


def reserve(ledger: Ledger) -> Any:
    return ledger.reserve(
        run_id="run-1",
        server="https://server",
        study_digest="d" * 64,
        study_name="risk",
        dataset="scans",
        recipe="r",
        unit="record",
        cohort=2,
        study_epsilon=1.0,
        study_delta=1e-6,
        turn_event={"event": "gaussian", "noise_multiplier": 0.5},
        num_turns=NUM_TURNS,
        meta={},
        grant_id=ID,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
