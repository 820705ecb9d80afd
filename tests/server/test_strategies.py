"""Strategies: the same bytes in any order, and what each does to the model."""

import math
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guilder_server import learners, norms, robust
from guilder_server.aggregate import BLOCK, weigh
from guilder_server.cohort import Member
from guilder_server.strategies import Kept, Strategy, Whole
from guilder_shared.errors import RunFailed
from guilder_shared.messages import Plan, Weights, pack
from guilder_shared.study import Study
from guilder_simulations.studies import path_of

NAMES = ("a", "b", "c", "d", "e")
SIZES = {"a": 20_000, "b": 17_000, "c": 900, "d": 33, "e": 5000}
WEIGHTS = weigh(SIZES)
SHAPES = {"w": (3, 2), "b": (3,)}
PLAN = Plan(2.0, 34, 1e-3)
KEYS = {
    "fedavg": (),
    "fedadam": ("server_learning_rate=0.3",),
    "scaffold": (),
    "median": (),
    "trimmed-mean": ("trim=0.34",),
    "norm-bound": ("norm_bound=0.5",),
}


@lru_cache(maxsize=64)  # reading the file takes longer than a round
def study_of(name: str, *overrides: str) -> Study:
    steps = ("training.local_steps=2", "training.learning_rate=4")
    keys = [f"aggregation.{key}" for key in KEYS[name]]
    chosen = (*steps, f"aggregation.strategy={name}", *keys, *overrides)
    return Study.load(path_of("breast-cancer"), chosen)


def member(name: str) -> Member:
    return Member(name, 1, "grant", SIZES[name])


def zeros(shapes: dict[str, tuple[int, ...]] = SHAPES) -> Weights:
    return {n: np.zeros(shape, np.float32) for n, shape in shapes.items()}


def updates_of(seed: int, spread: float = 1.0) -> dict[str, Weights]:
    random = np.random.default_rng(seed)
    return {
        name: {n: random.normal(0, spread, s).astype("f4") for n, s in SHAPES.items()}
        for name in NAMES
    }


class Course:
    """A model that goes through rounds under one strategy."""

    def __init__(self, study: Study, scratch: Path) -> None:
        self.strategy = Strategy(study, PLAN, scratch)
        self.model, self.round_no = zeros(), 0
        self.kept: Kept = self.strategy.kept(SHAPES, None, None)

    def go(
        self, updates: dict[str, Weights], members: tuple[str, ...] = NAMES
    ) -> Weights:
        self.round_no += 1
        here = {name: WEIGHTS[name] for name in members}
        taken = self.strategy.begin(SHAPES, here)
        for name, update in updates.items():
            taken.add(update, member(name))
        whole = Whole.of(here, members, updates)
        self.model, self.kept = self.strategy.close(
            self.round_no, self.model, taken, self.kept, whole
        )
        return self.model


@pytest.mark.parametrize("name", KEYS)
@given(order=st.permutations(NAMES), seed=st.integers(0, 2**32 - 1))
def test_the_order_of_arrival_changes_no_byte(
    tmp_path_factory: pytest.TempPathFactory, name: str, order: list[str], seed: int
) -> None:
    scratch = tmp_path_factory.getbasetemp() / "updates.tmp"
    rounds = [updates_of(seed), updates_of(seed + 1)]
    straight, mixed = (Course(study_of(name), scratch) for _ in range(2))

    for updates in rounds:
        straight.go(updates)
        mixed.go({each: updates[each] for each in order})

    assert pack(straight.model) == pack(mixed.model)
    assert straight.kept.facts == mixed.kept.facts
    assert all(
        np.array_equal(kept, mixed.kept.state[n])
        for n, kept in straight.kept.state.items()
    )


@pytest.mark.parametrize("name", KEYS)
@given(value=st.floats(-1023, 1023, width=32), seed=st.integers(0, 99))
def test_updates_at_the_edge_of_the_range_overflow_nothing(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: float, seed: int
) -> None:
    scratch = tmp_path_factory.getbasetemp() / "updates.tmp"
    course = Course(study_of(name), scratch)
    edge = {
        each: {n: np.full_like(w, value) for n, w in zeros().items()} for each in "ab"
    }

    model = course.go({**updates_of(seed), **edge})

    assert all(np.abs(w).max() <= 1024 for w in model.values())


def test_nothing_is_left_on_disk_after_a_round(tmp_path: Path) -> None:
    course = Course(study_of("median"), tmp_path / "updates.tmp")

    course.go(updates_of(1))

    assert list(tmp_path.iterdir()) == []


def test_nobody_finds_one_sites_update_on_disk(tmp_path: Path) -> None:
    """Neither beside a running round, nor after a server that was killed in one."""
    scratch = tmp_path / "run" / "updates.tmp"
    child = (
        "import os, sys; from pathlib import Path; import numpy as np; "
        "from guilder_server import robust; scratch = Path(sys.argv[1]); "
        "spill = robust.Spill(scratch, {'w': (6,)}, robust.median); "
        "spill.fold({'w': np.arange(6, dtype=np.float32)}); "
        "print(os.listdir(scratch.parent)); "
        "[link] = [f for f in os.listdir('/proc/self/fd') if 'updates.tmp' in "
        "os.path.realpath('/proc/self/fd/' + f)]; "
        "print(oct(os.fstat(int(link)).st_mode & 0o777), flush=True); "
        "os.kill(os.getpid(), 9)"
    )
    scratch.parent.mkdir()
    scratch.write_bytes(b"of an older server")

    done = subprocess.run(
        [sys.executable, "-c", child, str(scratch)], capture_output=True, text=True
    )

    assert done.stdout.split() == ["[]", "0o600"]
    assert list(scratch.parent.iterdir()) == []


def test_a_disk_without_room_for_updates_is_named(tmp_path: Path) -> None:
    child = (
        "import resource, sys; from pathlib import Path; import numpy as np; "
        "from guilder_server import robust, service; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "spill = robust.Spill(Path(sys.argv[1]), {'w': (20_000,)}, robust.median); "
        "update = {'w': np.zeros(20_000, np.float32)}; spill.fold(update)\n"
        "try:\n spill.fold(update)\n"
        "except OSError as error:\n print(service.not_written(error))\n"
        "spill.clear()"
    )

    done = subprocess.run(
        [sys.executable, "-c", child, str(tmp_path / "updates.tmp")],
        capture_output=True,
        text=True,
    )

    assert "GLD-R031 the run's folder cannot be written: File too large" in done.stdout


@pytest.mark.parametrize("name", ["median", "trimmed-mean"])
@given(
    lies=st.lists(st.floats(-1023, 1023, width=32), min_size=1, max_size=1),
    seed=st.integers(0, 99),
)
def test_a_robust_rule_stays_between_what_honest_sites_sent(
    tmp_path_factory: pytest.TempPathFactory, name: str, lies: list[float], seed: int
) -> None:
    scratch = tmp_path_factory.getbasetemp() / "updates.tmp"
    updates = updates_of(seed)
    honest = np.stack([updates[each]["w"] for each in "abcd"])
    updates["e"] = {n: np.full_like(w, lies[0]) for n, w in zeros().items()}

    found = Course(study_of(name), scratch).go(updates)["w"]

    assert (found >= honest.min(0) - 1e-6).all()
    assert (found <= honest.max(0) + 1e-6).all()


def test_a_rule_over_many_blocks_is_the_rule_over_the_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    model = {"b": np.zeros(7, np.float32), "w": np.zeros(2 * BLOCK + 5, np.float32)}
    spill = robust.Spill(
        tmp_path / "updates.tmp",
        {n: w.shape for n, w in model.items()},
        robust.median,
    )
    sent = [
        {n: random.normal(size=w.shape).astype("f4") for n, w in model.items()}
        for _ in range(4)
    ]
    for update in sent:
        spill.fold(update)

    found, _ = learners.Learner(learners.add, {}).learn(model, spill, {})

    for name in model:
        expected = np.median([u[name].astype("f8") for u in sent], axis=0)
        assert np.array_equal(found[name], expected.astype("f4"))


def test_fedadam_takes_the_steps_of_its_paper(tmp_path: Path) -> None:
    course = Course(study_of("fedadam"), tmp_path / "updates.tmp")
    x, mean, square = np.zeros((3, 2)), np.zeros((3, 2)), np.full((3, 2), 1e-6)

    for seed in (1, 2, 3):
        updates = updates_of(seed)
        model = course.go(updates)
        share = np.array([WEIGHTS[n] for n in NAMES]) / sum(WEIGHTS.values())
        step = sum(
            s * updates[n]["w"].astype("f8") for s, n in zip(share, NAMES, strict=True)
        )
        mean = 0.9 * mean + 0.1 * step
        square = 0.99 * square + 0.01 * step**2
        x = x + 0.3 * mean / (np.sqrt(square) + 1e-3)

    assert model["w"] == pytest.approx(x, abs=1e-5)


def test_a_step_that_leaves_the_numbers_is_refused_by_name(tmp_path: Path) -> None:
    course = Course(study_of("fedavg"), tmp_path / "updates.tmp")
    course.model = {n: np.full(s, 3.4028e38, np.float32) for n, s in SHAPES.items()}
    far = learners.Learner(lambda model, centre: (model * 2 + centre,), {})
    taken = course.strategy.begin(SHAPES, WEIGHTS)
    taken.add(updates_of(1)["a"], member("a"))

    with pytest.raises(RunFailed) as caught:
        far.learn(course.model, taken, {})

    assert caught.value.error_id == "GLD-R040"


class Sites:
    """Sites under SCAFFOLD: gradients given, variates as the product computes them."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.own = {name: zeros() for name in NAMES}
        self.since = 1

    def turn(self, course: Course, grads: dict[str, Weights]) -> dict[str, Weights]:
        """Updates of these sites, whose variates are renewed."""
        from guilder_shared.training.variates import renewed, shift

        control, since = course.kept.control, course.kept.since
        assert control is not None
        assert since is not None
        if since.round_no != self.since:
            self.own, self.since = {name: zeros() for name in NAMES}, since.round_no
        sent = {}
        for name, grad in grads.items():
            moved = 4.0 * 2  # learning rate x steps
            way = shift(self.own[name], control)
            sent[name] = {n: -moved * (grad[n] + way[n]) for n in grad}
            self.own[name] = renewed(self.own[name], control, sent[name], self.study)
        return sent

    def mean(self, members: tuple[str, ...]) -> np.ndarray:
        """The mean of the members' variates by weight."""
        total = sum(WEIGHTS[name] for name in members)
        mean: np.ndarray = np.sum(
            [WEIGHTS[n] / total * self.own[n]["w"] for n in members], axis=0
        )
        return mean


@pytest.mark.parametrize("absent", [(), ("b",), ("a", "e")])
def test_the_global_variate_is_the_mean_of_the_sites_own(
    tmp_path: Path, absent: tuple[str, ...]
) -> None:
    study = study_of("scaffold")
    course, sites = Course(study, tmp_path / "updates.tmp"), Sites(study)

    for seed in range(1, 5):  # from the second round on some do not answer
        grads = updates_of(seed, 0.1)
        away = absent if seed > 1 else ()
        course.go(sites.turn(course, {n: g for n, g in grads.items() if n not in away}))

    control = course.kept.control
    assert control is not None
    assert control["w"] == pytest.approx(sites.mean(NAMES), abs=1e-5)
    assert sites.own["c"]["w"] == pytest.approx(grads["c"]["w"], abs=1e-5)


def test_variates_begin_anew_when_a_site_is_out(tmp_path: Path) -> None:
    study = study_of("scaffold")
    course, sites = Course(study, tmp_path / "updates.tmp"), Sites(study)
    left = NAMES[:4]
    course.go(sites.turn(course, updates_of(1, 0.1)))

    course.go(sites.turn(course, {n: updates_of(2, 0.1)[n] for n in left}), left)
    anew = course.kept
    course.go(sites.turn(course, {n: updates_of(3, 0.1)[n] for n in left}), left)

    assert anew.facts is not None
    assert anew.facts["round_no"] == 3
    assert not any(w.any() for w in anew.state.values())
    control: Any = course.kept.control
    assert control["w"] == pytest.approx(sites.mean(left), abs=1e-5)


def test_the_allowance_is_the_noises_expected_length() -> None:
    """Turns of pure noise, as `fit` makes them, are as long as is allowed for."""
    from guilder_shared.models import registry
    from guilder_shared.privacy.sampling import TurnKeys
    from guilder_shared.tasks import Examples
    from guilder_shared.training.fit import fit

    study = study_of("norm-bound", "training.momentum=0.9", "training.local_steps=5")
    plan = Plan(2.0, study.training.rounds + study.aggregation.spare_turns, 1e-3)
    model = registry.initial(study)
    num = sum(w.size for w in model.values())
    width = registry.num_inputs(study.data)
    nobody = Examples(np.zeros((0, width), "f4"), np.zeros((0, 1), "f4"))

    lengths = []
    for turn_no in range(40):
        keys = TurnKeys.seeded(1, site="a", round_no=1, turn_no=turn_no)
        update = fit(model, study, plan, nobody, public_size=90, keys=keys)
        lengths.append(math.sqrt(sum(float((w**2).sum()) for w in update.values())))

    most = norms.longest(study, plan, public_size=90, num_numbers=num)
    allowed = most - 0.5
    # 31 numbers: a length's deviation is 0.71 / 5.5 of it, of 40 lengths' mean 2 %
    assert np.mean(lengths) == pytest.approx(allowed, rel=0.11)


def test_an_update_within_the_bound_is_left_as_it_is() -> None:
    update = {"w": np.array([3.0, 4.0], np.float32)}

    assert norms.scale(update, 5.0) == 1.0
    assert norms.scale(update, 1.0) == pytest.approx(0.2)
