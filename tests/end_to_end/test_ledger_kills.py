"""kill -9 at any instant: no charge is lost, doubled or forgotten."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from guilder_shared.errors import BudgetSpent
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy.ledger import Grant, Ledger
from guilder_shared.privacy.ledger.grants import NUM_REPEATS

CHILD = Path(__file__).with_name("ledger_child.py")
OFFICER = Officer(SigningKey.generate(), site="bank-a")
ORDERS = [
    OFFICER.budget("patients", 3.0, 1e-5, ["scans"]),
    OFFICER.rule("any", recipes=["r"], largest_epsilon=100, largest_delta=0.5),
]
LONGEST_LIFE_S = 0.05  # after its first line; about 50 turns


def open_ledger(folder: Path) -> Ledger:
    key = SigningKey.load(folder / "key")
    return Ledger.open(
        folder / "ledger.db",
        key,
        site="bank-a",
        officer=OFFICER.public_hex,
        orders=ORDERS,
    )


def live_and_die(folder: Path, life_s: float) -> list[tuple[str, int]]:
    """Start the child, kill it after its first line and a while; what it said."""
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    first = child.stdout.readline()
    time.sleep(life_s)
    child.kill()
    lines = [first, *child.stdout.read().split("\n")[:-1]]
    assert child.wait(10) == -signal.SIGKILL, lines
    return [(word, int(number)) for word, number in (line.split() for line in lines)]


def check(grant: Grant, said: Counter[tuple[str, int]]) -> None:
    """What the ledger says lies between what was confirmed and what was begun."""
    for turn_no in range(1, grant.num_turns + 1):
        confirmed = said["new", turn_no] + said["again", turn_no]
        turn = grant.turns.get(turn_no)
        attempts = 0 if turn is None else turn.attempts
        assert confirmed <= attempts <= said["asked", turn_no]
        assert said["new", turn_no] <= 1
        sealed = turn is not None and turn.sealed_sha256 is not None
        assert said["sealed", turn_no] <= sealed <= said["sealing", turn_no]
        assert said["sealed", turn_no] <= 1


def kill_often(folder: Path, num_kills: int, seed: int) -> None:
    chance = random.Random(seed)
    SigningKey.generate().save(folder / "key")
    (folder / "officer.pub").write_text(OFFICER.public_hex)
    with open_ledger(folder) as ledger:
        ledger.reserve(
            run_id="run-1",
            server="s",
            study_digest="d",
            study_name="risk",
            dataset="scans",
            recipe="r",
            unit="record",
            cohort=2,
            study_epsilon=2.0,
            study_delta=1e-6,
            turn_event={"event": "gaussian", "noise_multiplier": 0.5},
            num_turns=1_000_000,
            meta={},
        )
    said: Counter[tuple[str, int]] = Counter()

    for _ in range(num_kills):
        said.update(live_and_die(folder, chance.uniform(0, LONGEST_LIFE_S)))

        with open_ledger(folder) as ledger:  # checks chain and signatures
            (grant,) = ledger.grants()
            left = ledger.totals()["patients"].left_epsilon
        asked = {number for word, number in said if word == "asked"}
        assert set(grant.turns) <= asked
        # One grant, charged once, whatever was killed in between.
        assert left == 1
        assert list(grant.turns) == list(range(1, len(grant.turns) + 1))
        grant = Grant(**{**vars(grant), "num_turns": max(asked)})
        check(grant, said)

    if num_kills > 1:  # a single kill may fall before the first charge
        assert len(grant.turns) > num_kills  # the kills fell into real work


@pytest.mark.brief
def test_twenty_kills_lose_double_and_forget_nothing(tmp_path: Path) -> None:
    kill_often(tmp_path, 20, seed=20)


@pytest.mark.slow(minutes=4)
@pytest.mark.timeout(1200)
def test_two_hundred_kills_lose_double_and_forget_nothing(tmp_path: Path) -> None:
    seed = time.time_ns()
    print("seed", seed)
    kill_often(tmp_path, 200, seed=seed)


def test_a_turn_killed_in_every_attempt_is_given_up_and_charged_once(
    tmp_path: Path,
) -> None:
    kill_often(tmp_path, 1, seed=1)
    with open_ledger(tmp_path) as ledger:
        (grant,) = ledger.grants()
        turn_no = grant.newest_turn() + 1

    for attempt in range(1, 2 + NUM_REPEATS):  # restarted before each try
        with open_ledger(tmp_path) as ledger:
            assert ledger.spend(grant.grant_id, turn_no, "h").attempt == attempt

    with (
        open_ledger(tmp_path) as ledger,
        pytest.raises(BudgetSpent, match="given up"),
    ):
        ledger.spend(grant.grant_id, turn_no, "h")
    with open_ledger(tmp_path) as ledger:
        assert len(ledger.grants()[0].turns) == turn_no
