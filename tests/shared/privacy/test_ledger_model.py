"""Any order of verbs, crashes included, against a model of a few dictionaries."""

import shutil
import tempfile
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from guilder_shared.errors import BudgetSpent, IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.orders import Order
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.privacy.ledger.grants import NUM_REPEATS

KEY = SigningKey.generate()
LOUD = {"event": "gaussian", "noise_multiplier": 0.5}  # the pure sum alone decides
OFFICER = Officer(SigningKey.generate(), site="bank-a")


def budget(epsilon: float) -> Order:
    return OFFICER.budget("patients", epsilon, 1e-5, ["scans"])


def permit() -> Order:
    return OFFICER.rule("any", recipes=["r"], largest_epsilon=100, largest_delta=0.5)


RUNS = st.sampled_from(["run-1", "run-2", "run-3", "run-4"])
TURNS = st.integers(0, 4)
HASHES = st.sampled_from(["h1", "h2"])
SEALS = st.sampled_from(["s1", "s2"])
EPSILONS = {"run-1": 0.3, "run-2": 0.4, "run-3": 0.5, "run-4": 0.1}
NUM_TURNS = 3


@dataclass
class ModelTurn:
    request_hash: str
    attempts: int = 1
    sealed: str = ""
    given_up: bool = False
    received: bool = False


@dataclass
class ModelGrant:
    epsilon: Decimal
    approval: str
    closed: bool = False
    turns: dict[int, ModelTurn] = field(default_factory=dict)

    def charged(self) -> Decimal:
        return Decimal(0) if self.closed and not self.turns else self.epsilon


class LedgerMachine(RuleBasedStateMachine):
    """The ledger and the model are told the same; they must answer the same.

    A copy of the files stands for the crash, so they may lie in memory.
    """

    def __init__(self, memory: Path) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=memory))
        self.num_copies = 0
        self.path = self.folder / "0" / "ledger.db"
        self.ledger = self.open()
        self.limit = Decimal(1)
        self.revoked: set[str] = set()
        self.rule = permit()
        self.ledger.admit(budget(1.0))
        self.ledger.admit(self.rule)
        self.model: dict[str, ModelGrant] = {}
        self.ids: dict[str, str] = {}

    def open(self) -> Ledger:
        officer = OFFICER.public_hex
        return Ledger.open(self.path, KEY, site="bank-a", officer=officer)

    def teardown(self) -> None:
        self.ledger.shut()
        shutil.rmtree(self.folder)

    def expected(self) -> Decimal:
        return sum((grant.charged() for grant in self.model.values()), Decimal(0))

    @rule(run=RUNS)
    def reserve(self, run: str) -> None:
        epsilon = Decimal(str(EPSILONS[run]))
        answer = self.model_answer(run, epsilon)
        try:
            grant = self.ledger.reserve(
                run_id=run,
                server="s",
                study_digest="d",
                study_name=run,
                dataset="scans",
                recipe="r",
                unit="record",
                cohort=2,
                study_epsilon=EPSILONS[run],
                study_delta=1e-7,
                turn_event=LOUD,
                num_turns=NUM_TURNS,
                meta={},
            )
        except BudgetSpent as error:
            refused = error.error_id
        else:
            refused = ""
        assert refused == answer
        if refused:
            return
        assert self.ids.setdefault(run, grant.grant_id) == grant.grant_id
        self.model.setdefault(run, ModelGrant(epsilon, self.rule.order_id))

    def model_answer(self, run: str, epsilon: Decimal) -> str:
        if run in self.model:
            return ""
        if self.rule.order_id in self.revoked:
            return "GLD-B012"
        return "" if self.expected() + epsilon <= self.limit else "GLD-B003"

    @rule(run=RUNS, turn_no=TURNS, request_hash=HASHES)
    def spend(self, run: str, turn_no: int, request_hash: str) -> None:
        answer: str
        try:
            answer = self.ledger.spend(
                self.ids.get(run, "none"), turn_no, request_hash
            ).state
        except (BudgetSpent, IntegrityError) as error:
            answer = error.error_id
        assert answer == self.model_spend(run, turn_no, request_hash)

    def model_spend(self, run: str, turn_no: int, request_hash: str) -> str:
        grant = self.model.get(run)
        if grant is None:
            return "GLD-B002"
        turn = grant.turns.get(turn_no)
        if turn is None:
            if not max(grant.turns, default=0) < turn_no <= NUM_TURNS:
                return "GLD-B004"
            return self.model_new_turn(grant, turn_no, request_hash)
        if turn.request_hash != request_hash:
            return "GLD-I008"
        return self.model_repeat(grant, turn)

    def model_new_turn(self, grant: ModelGrant, turn_no: int, request: str) -> str:
        if grant.closed:
            return "GLD-B006"
        if grant.approval in self.revoked:
            return "GLD-B012"
        if self.expected() > self.limit:
            return "GLD-B008"
        grant.turns[turn_no] = ModelTurn(request)
        return "new"

    def model_repeat(self, grant: ModelGrant, turn: ModelTurn) -> str:
        if turn.sealed:
            return "sealed"
        if grant.closed:
            return "GLD-B006"
        if turn.attempts == 1 + NUM_REPEATS:
            turn.given_up = True
            return "GLD-B005"
        turn.attempts += 1
        return "again"

    @rule(run=RUNS, turn_no=TURNS, sha256=SEALS)
    def seal(self, run: str, turn_no: int, sha256: str) -> None:
        turn = self.model[run].turns.get(turn_no) if run in self.model else None
        may = turn is not None and not turn.given_up and turn.sealed in ("", sha256)
        try:
            self.ledger.seal(self.ids.get(run, "none"), turn_no, sha256)
        except (BudgetSpent, IntegrityError):
            assert not may
            return
        assert may
        assert turn is not None
        turn.sealed = sha256

    @rule(run=RUNS, turn_no=TURNS, sha256=SEALS)
    def receipt(self, run: str, turn_no: int, sha256: str) -> None:
        if run in self.model:
            turn = self.model[run].turns.get(turn_no)
            fits = turn is not None and turn.sealed == sha256
            assert self.ledger.receipt(self.ids[run], turn_no, sha256) == fits
            if turn is not None and fits:
                turn.received = True

    @rule(run=RUNS)
    def close(self, run: str) -> None:
        if run in self.model:
            self.ledger.close(self.ids[run])
            self.model[run].closed = True

    @rule(epsilon=st.sampled_from([0.35, 0.6, 1.0]))
    def change_the_budget(self, epsilon: float) -> None:
        self.ledger.admit(budget(epsilon))
        self.limit = Decimal(str(epsilon))

    @rule()
    def revoke(self) -> None:
        self.ledger.admit(OFFICER.revoke(self.rule.order_id))
        self.revoked.add(self.rule.order_id)

    @rule()
    def permit_anew(self) -> None:
        self.rule = permit()
        self.ledger.admit(self.rule)

    @rule()
    def restart(self) -> None:
        self.ledger.shut()
        self.ledger = self.open()

    @rule()
    def crash(self) -> None:
        """Go on with the files as they lie, as after kill -9."""
        self.num_copies += 1
        left = self.folder / str(self.num_copies)
        shutil.copytree(self.path.parent, left)
        self.ledger.shut()
        self.path = left / "ledger.db"
        self.ledger = self.open()

    @invariant()
    def both_say_the_same(self) -> None:
        totals = self.ledger.totals()["patients"]
        left = max(self.limit - self.expected(), Decimal(0))
        assert Decimal(str(totals.left_epsilon)) == left
        found = {grant.run_id: grant for grant in self.ledger.grants()}
        assert found.keys() == self.model.keys()
        for run, grant in self.model.items():
            assert found[run].closed == grant.closed
            assert {
                number: ModelTurn(
                    turn.request_hash,
                    turn.attempts,
                    turn.sealed_sha256 or "",
                    turn.given_up,
                    turn.receipt is not None,
                )
                for number, turn in found[run].turns.items()
            } == grant.turns


def check(
    num_examples: int, num_steps: int, memory: Path, *, derandomize: bool
) -> None:
    run_state_machine_as_test(
        lambda: LedgerMachine(memory),  # type: ignore[arg-type]  # makes one each
        settings=settings(
            max_examples=num_examples,
            stateful_step_count=num_steps,
            derandomize=derandomize,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.brief
def test_any_order_of_verbs_and_crashes_agrees_with_the_model(memory: Path) -> None:
    check(500, 12, memory, derandomize=True)


@pytest.mark.slow(minutes=8)
@pytest.mark.timeout(3000)
def test_any_long_order_of_verbs_and_crashes_agrees_with_the_model(
    memory: Path,
) -> None:
    for _ in range(10):  # hypothesis remembers every example of a run
        check(1_000, 20, memory, derandomize=False)
