"""kill -9 at random moments: nothing is lost, nothing is charged twice."""

import random
import secrets
import threading
import time
from typing import Any

import pytest

from guilder_simulations.engine import simulate

Founding = Any  # the fixture `found`; see conftest.py
LONG = ("training.rounds=60", "aggregation.round_deadline_s=120")


class Killer(threading.Thread):
    """Kills the server or a client, again and again, and starts it anew each time."""

    def __init__(self, hospitals: Any, seed: int, num_kills: int) -> None:
        super().__init__(daemon=True)
        self._hospitals = hospitals
        self._random = random.Random(seed)
        self._left = num_kills
        self.killed: list[str] = []
        self.done = threading.Event()

    def run(self) -> None:
        while self._left and not self.done.is_set():
            # from inside one round (tens of ms) to several rounds later
            time.sleep(self._random.choice((0.02, 0.2, 1.0)) * self._random.random())
            victim = self._random.choice(["server", *self._hospitals.sites])
            self._hospitals.kill(victim)
            self._hospitals.start(victim)
            self.killed.append(victim)
            self._left -= 1
            # let the run make a step now and then, so that kills meet every state
            if self._random.random() < 0.5:
                time.sleep(4 * self._random.random())


def last_event(hospitals: Any, run_id: str) -> dict[str, Any]:
    """The run's last event, through however many restarts of the server."""
    with hospitals.control(timeout_s=60) as control:
        events: list[dict[str, Any]] = list(control.watch(run_id))
    return events[-1]


def disturbed(hospitals: Any, study: Any, seed: int, num_kills: int) -> str:
    """Run `study` while processes are killed; returns the run's id."""
    hospitals.start_all()
    run_id: str = hospitals.run(study)
    killer = Killer(hospitals, seed, num_kills)
    killer.start()
    last = last_event(hospitals, run_id)
    killer.done.set()
    killer.join()

    assert last["kind"] == "run-finished", (seed, killer.killed, last)
    print(f"killed {len(killer.killed)}: {' '.join(killer.killed)}")
    assert len(killer.killed) >= num_kills - 4, "the run ended before the kills"
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


def test_killed_at_random_moments_it_ends_with_the_undisturbed_model(
    found: Founding,
) -> None:
    hospitals = found(allow_unprotected=True)
    study = hospitals.study_with(
        *LONG, "privacy.mechanism=none", "training.test_seed=5"
    )

    run_id = disturbed(hospitals, study, seed=3, num_kills=6)

    simulate(study, hospitals.folder / "undisturbed")
    model = hospitals.folder / "undisturbed" / "rounds" / "060" / "model.safetensors"
    assert hospitals.model(run_id, 60) == model.read_bytes()
    check_charges(hospitals, rounds=60)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_private_run_survives_at_least_twenty_kills(found: Founding) -> None:
    seed = secrets.randbelow(2**31)
    print(f"seed {seed}")
    hospitals = found()
    study = hospitals.study_with("training.rounds=300", *LONG[1:])

    disturbed(hospitals, study, seed=seed, num_kills=24)

    check_charges(hospitals, rounds=300)


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
    found: Founding, strategy: tuple[str, ...]
) -> None:
    hospitals = found(allow_unprotected=True)
    study = hospitals.study_with(
        *LONG,
        "training.local_steps=2",
        *(f"aggregation.{key}" for key in strategy),
        "privacy.mechanism=none",
        "training.test_seed=5",
    )

    run_id = disturbed(hospitals, study, seed=11, num_kills=8)

    simulate(study, hospitals.folder / "undisturbed")
    model = hospitals.folder / "undisturbed" / "rounds" / "060" / "model.safetensors"
    assert hospitals.model(run_id, 60) == model.read_bytes()
    check_charges(hospitals, rounds=60)
