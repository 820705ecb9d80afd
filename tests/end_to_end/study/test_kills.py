"""kill -9 at random moments: nothing is lost, nothing is charged twice."""

import random
import secrets
import threading
import time
from typing import Any

import pytest

from guilder_simulations.engine import simulate

Founding = Any  # the fixture `found`; see conftest.py
STAYS_S = 20.0  # a run that does not go on for so long is killed again all the same


class Killer(threading.Thread):
    """Kills the server or a client, again and again, and starts it anew each time.

    Half of the kills come upon a run that has gone on since the one before, at a moment
    from inside a round to some rounds later; the others upon processes that start. How
    far the run comes is counted in rounds, not in seconds, so that it lasts for all the
    kills on any machine.
    """

    def __init__(self, hospitals: Any, run_id: str, seed: int, num_kills: int) -> None:
        super().__init__(daemon=True)
        self._hospitals, self._run_id = hospitals, run_id
        self._random = random.Random(seed)
        self._left = num_kills
        self.killed: list[str] = []
        self.done = threading.Event()

    def run(self) -> None:
        while self._left and not self.done.is_set():
            if self._random.random() < 0.5:
                self._let_it_go_on(self._random.randint(1, 3))
            time.sleep(self._random.choice((0.02, 0.1, 0.3)) * self._random.random())
            victim = self._random.choice(["server", *self._hospitals.sites])
            self._hospitals.kill(victim)
            self._hospitals.start(victim)
            self.killed.append(victim)
            self._left -= 1

    def _let_it_go_on(self, num_rounds: int) -> None:
        ends = time.monotonic() + STAYS_S
        goal = self._hospitals.num_rounds(self._run_id) + num_rounds
        while self._hospitals.num_rounds(self._run_id) < goal:
            if time.monotonic() > ends or self.done.wait(0.01):
                return


def disturbed(hospitals: Any, study: Any, seed: int, num_kills: int) -> str:
    """Run `study` while processes are killed; returns the run's id."""
    hospitals.start_all()
    run_id: str = hospitals.run(study)
    killer = Killer(hospitals, run_id, seed, num_kills)
    with hospitals.control(timeout_s=60) as control:
        events = control.watch(run_id)
        last = next(events)  # connected: it outlives the server's restarts from now on
        killer.start()
        for event in events:
            last = event
    killer.done.set()
    killer.join()

    assert last["kind"] == "run-finished", (seed, killer.killed, last)
    print(f"killed {len(killer.killed)}: {' '.join(killer.killed)}")
    assert len(killer.killed) == num_kills, "the run ended before the kills"
    return run_id


def check_charges(hospitals: Any, rounds: int) -> None:
    """Every ledger verifies, and each turn was charged once and sealed once."""
    for site in hospitals.sites:
        (grant,) = hospitals.grants(site)
        sealed = [t for t in grant.turns.values() if t.sealed_sha256]
        assert len(sealed) == rounds
        assert len(grant.turns) <= grant.num_turns
        (study,) = hospitals.verified(site).studies
        assert study.num_turns_spent == len(grant.turns)


def ends_undisturbed(
    found: Founding, *overrides: str, rounds: int, seed: int, num_kills: int
) -> None:
    """Run a study under kills: its model is that of a run without, each turn paid once.

    No noise and a test seed, so that two runs can be compared byte by byte.
    """
    hospitals = found(allow_unprotected=True)
    study = hospitals.study_with(
        f"training.rounds={rounds}",
        "aggregation.round_deadline_s=120",
        "privacy.mechanism=none",
        "training.test_seed=5",
        *overrides,
    )

    run_id = disturbed(hospitals, study, seed, num_kills)

    simulate(study, hospitals.folder / "undisturbed")
    name = f"rounds/{rounds:03d}/model.safetensors"
    model = (hospitals.folder / "undisturbed" / name).read_bytes()
    assert hospitals.model(run_id, rounds) == model
    check_charges(hospitals, rounds)


@pytest.mark.brief
def test_killed_twenty_times_it_ends_with_the_undisturbed_model(
    found_forked: Founding,
) -> None:
    ends_undisturbed(found_forked, rounds=80, seed=3, num_kills=20)


@pytest.mark.slow(minutes=8)
@pytest.mark.timeout(2400)
def test_killed_two_hundred_times_it_ends_with_the_undisturbed_model(
    found_forked: Founding,
) -> None:
    seed = secrets.randbelow(2**31)
    print(f"seed {seed}")

    ends_undisturbed(found_forked, rounds=700, seed=seed, num_kills=200)


@pytest.mark.slow(minutes=1.5)
@pytest.mark.timeout(1200)
def test_a_private_run_survives_at_least_twenty_kills(found: Founding) -> None:
    seed = secrets.randbelow(2**31)
    print(f"seed {seed}")
    hospitals = found()
    study = hospitals.study_with(
        "training.rounds=150", "aggregation.round_deadline_s=120"
    )

    disturbed(hospitals, study, seed=seed, num_kills=24)

    check_charges(hospitals, rounds=150)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "strategy",
    [
        ("strategy=fedadam", "server_learning_rate=0.1"),
        ("strategy=scaffold", "compression=int8"),
        ("strategy=median",),
    ],
    ids=lambda keys: keys[0].partition("=")[2],
)
def test_what_a_strategy_remembers_survives_kills(
    found_forked: Founding, strategy: tuple[str, ...]
) -> None:
    keys = (f"aggregation.{key}" for key in strategy)

    ends_undisturbed(
        found_forked, "training.local_steps=2", *keys, rounds=60, seed=11, num_kills=8
    )
