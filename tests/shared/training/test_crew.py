"""Several processes of one site: one clipped sum, one noise, real processes."""

import ipaddress
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray

from guilder_shared.errors import DeviceError
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.privacy import isolation
from guilder_shared.privacy.bookkeeping.step import PrivateStep
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import crew, device, draws, selftest
from guilder_shared.training.fit import fit

Make = Callable[..., Study]
Total = NDArray[np.float64]
MLP = {"name": "mlp", "hidden": [16, 8]}
KEYS = TurnKeys.seeded(4, site="site-1", round_no=1)


@pytest.fixture(scope="module", autouse=True)
def _nobody_stays() -> Iterator[None]:
    yield
    crew.end()


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """So many processes take the turns of this test."""

    def settle(num: int) -> None:
        monkeypatch.setattr(device, "_speed", device.Speed(devices=num))

    return settle


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> list[Total]:
    """The exact sums of turns, as they are just before the noise."""
    seen: list[Total] = []
    release = PrivateStep.release

    def watch(self: PrivateStep, total: torch.Tensor) -> None:
        seen.append(np.array(total.numpy(), np.float64))
        release(self, total)

    monkeypatch.setattr(PrivateStep, "release", watch)
    return seen


def rows(num: int, units: int | None = None) -> Examples:
    rng = np.random.default_rng(1)
    inputs = rng.uniform(-1, 1, (num, 3)).astype(np.float32)
    whose = None if units is None else rng.integers(0, units, num)
    return Examples(inputs, (inputs[:, 0] > 0.2).astype(np.float32), whose)


def taken(study: Study, examples: Examples, keys: TurnKeys = KEYS) -> Any:
    update = fit(
        registry.initial(study),
        study,
        Plan(1.5, study.training.rounds + 2, 1e-3),
        examples,
        public_size=60,
        keys=keys,
    )
    return np.concatenate([update[name].reshape(-1) for name in sorted(update)])


def studies(make: Make) -> dict[str, tuple[Study, Examples]]:
    person = {"unit": "person", "max_records": 90}
    return {
        "records": (make(model=MLP, sample_rate=0.5, local_steps=3), rows(2000)),
        "a moving clip norm": (
            make(model=MLP, local_steps=3, adaptive_clip={"quantile": 0.5}),
            rows(900),
        ),
        "copies": (
            make(model=MLP, augment={"copies": 3, "jitter": 0.1}),
            rows(300),
        ),
        "persons": (
            make(model=MLP, privacy=person, person="who", local_steps=2),
            rows(1200, units=9),
        ),
        "nobody": (make(model=MLP, local_steps=2), rows(0)),
    }


@pytest.mark.parametrize(
    "kind", ["records", "a moving clip norm", "copies", "persons", "nobody"]
)
def test_two_processes_give_what_one_gives(
    study_of: Make,
    devices: Callable[[int], None],
    sums: list[Total],
    kind: str,
) -> None:
    study, examples = studies(study_of)[kind]
    alone = taken(study, examples)

    devices(2)
    shared = taken(study, examples)

    steps = study.training.local_steps
    for one, two in zip(sums[:steps], sums[steps:], strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=0.5 * 2.0**-30)
    # The noise is rounded to a public grid, and so is what is left of a difference.
    np.testing.assert_allclose(shared, alone, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_sum_is_the_same_to_the_bit_for_any_number_of_processes(
    study_of: Make, devices: Callable[[int], None], sums: list[Total]
) -> None:
    study, examples = studies(study_of)["records"]

    for num in (2, 3, 4):
        devices(num)
        taken(study, examples)

    steps = study.training.local_steps
    for step in range(steps):
        two, three, four = (sums[step + n * steps] for n in range(3))
        assert np.abs(two).max() > 0
        assert two.tobytes() == three.tobytes() == four.tobytes()


def test_noise_is_added_once_whoever_shares_the_turn(
    study_of: Make, devices: Callable[[int], None]
) -> None:
    study = study_of(model=MLP, sample_rate=1.0)
    devices(2)

    updates = [
        taken(study, rows(0), TurnKeys.seeded(n, site="a", round_no=1))
        for n in range(12)
    ]

    # noise multiplier x clip norm / divisor; a second noise would double the squares
    squares = (np.concatenate(updates).astype(np.float64) / (1.5 * 0.5 / 60)) ** 2
    assert abs(squares.mean() - 1) < 6 * np.sqrt(2 / len(squares))


def test_nobody_in_a_crew_listens_or_talks_beyond_loopback(
    study_of: Make, devices: Callable[[int], None]
) -> None:
    devices(2)
    taken(*studies(study_of)["records"])

    pids = [os.getpid(), *(worker.pid for worker in the_crew().workers)]
    ends = [c for pid in pids for c in psutil.Process(pid).net_connections("inet")]

    assert len(ends) >= 2  # the exchange's own
    for end in ends:
        for address in filter(None, (end.laddr, end.raddr)):
            assert ipaddress.ip_address(address.ip).is_loopback


LEADER = """
import sys, time
from guilder_shared.training import crew, device
device.settle(device.Speed(devices=2))
print(crew._ready().workers[0].pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_workers_end_with_the_process_they_work_for(
    eventually: Callable[..., Any],
) -> None:
    leader = subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE)
    assert leader.stdout is not None
    worker = psutil.Process(int(leader.stdout.readline()))

    leader.kill()
    leader.wait()
    leader.stdout.close()

    assert eventually(lambda: not worker.is_running() or worker.status() == "zombie")


def test_a_worker_that_was_killed_between_turns_is_replaced(
    study_of: Make, devices: Callable[[int], None]
) -> None:
    study, examples = studies(study_of)["records"]
    devices(2)
    before = taken(study, examples)
    (worker,) = the_crew().workers

    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    again = taken(study, examples)

    assert again.tobytes() == before.tobytes()
    assert the_crew().workers[0].pid != worker.pid


def test_a_worker_that_is_killed_in_a_turn_fails_it_and_leaves_nobody(
    study_of: Make, devices: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, examples = studies(study_of)["records"]
    devices(2)
    before = taken(study, examples)
    (worker,) = the_crew().workers
    draw = draws.Sampler.draw

    def kill_then_draw(self: Any, keys: TurnKeys, step: int) -> Any:
        if step == 1:
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
        return draw(self, keys, step)

    with monkeypatch.context() as planted:
        planted.setattr(draws.Sampler, "draw", kill_then_draw)
        with pytest.raises(DeviceError) as caught:
            taken(study, examples)
    after = taken(study, examples)

    assert caught.value.error_id == "GLD-G010"
    assert after.tobytes() == before.tobytes()


@pytest.mark.slow
def test_the_self_test_tries_what_several_processes_compute(
    study_of: Make, devices: Callable[[int], None]
) -> None:
    study = study_of(
        model=MLP, sample_rate=0.5, local_steps=3, adaptive_clip={"quantile": 0.5}
    )
    devices(2)

    passed = selftest.run(study, Plan(1.5, 18, 1e-3), public_size=300)

    assert passed.checks == selftest.CHECKS
    assert the_crew().whole()


def test_devices_that_round_differently_are_told_by_made_up_rows(
    study_of: Make,
) -> None:
    study = study_of(model=MLP)
    told = []
    for autocast in (None, None, torch.bfloat16):
        from guilder_shared import tasks
        from guilder_shared.privacy.bookkeeping.engine import BookKeeping

        module = registry.load(registry.initial(study), study)
        engine = BookKeeping(module, 0.5, isolated=True, autocast=autocast)
        like = torch.zeros(1, 3), torch.zeros(1)
        losses = tasks.recipe("tabular-classification").losses
        told.append(isolation.bits(engine, losses, like, 64))
        engine.close()

    assert told[0] == told[1] != told[2]
    assert all(0 <= bits < 2**62 for bits in told)


def test_more_cards_than_there_are_are_said_before_any_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    kept = torch.backends.cudnn.deterministic

    try:
        with pytest.raises(DeviceError) as caught:
            device.settle(device.Speed(device="cuda", devices=3))
    finally:
        torch.backends.cudnn.deterministic = kept

    assert caught.value.error_id == "GLD-G013"
    assert device.current() == device.Speed()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_cards_give_what_one_gives(
    study_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, examples = studies(study_of)["records"]
    device.choose("cuda")
    monkeypatch.setattr(device, "_speed", device.Speed(device="cuda"))
    alone = taken(study, examples)

    monkeypatch.setattr(device, "_speed", device.Speed(device="cuda", devices=2))
    shared = taken(study, examples)

    np.testing.assert_allclose(shared, alone, rtol=0, atol=1e-6)


def the_crew() -> crew.Crew:
    assert crew._crew is not None
    return crew._crew
