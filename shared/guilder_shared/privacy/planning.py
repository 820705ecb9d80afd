"""What a study's promise costs in noise, and what other schedules would cost instead.

Computed from a study's public constants before anybody approves it. It knows no site,
no ledger and no row, keeps nothing, and loads no torch.

The mathematics: the figures are `accounting`'s upper bounds (add/remove of one unit).
Epsilon after some turns is a figure for comparison, no guarantee: stopping may depend
on the data, and a site's budget takes the whole schedule.
Crash order: pure functions; nothing is durable here and nothing is sent.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from guilder_shared.errors import PlanError
from guilder_shared.messages import Plan
from guilder_shared.privacy import accounting
from guilder_shared.privacy.events import Event
from guilder_shared.study import Study

MOST_POINTS = 12  # of a curve; each costs a privacy loss distribution


@dataclass(frozen=True)
class Schedule:
    """One way to train with the same promise.

    Attributes:
        rounds: Of the study; spare turns come on top.
        sample_rate: Chance of each unit to be drawn in a step; 1: all, every time.
        noise_multiplier: Standard deviation of the noise over the clip norm.
        relative_noise: Noise over signal in the sum of all rounds' steps, against the
            study as it is (1): noise_multiplier / (sample_rate sqrt(rounds)).
    """

    rounds: int
    sample_rate: float
    noise_multiplier: float
    relative_noise: float


@dataclass(frozen=True)
class Outlook:
    """What a study will cost.

    Attributes:
        plan: The least noise that keeps the promise.
        epsilon: Of the whole schedule, spare turns included; at most the study's.
        delta: Of the study.
        by_turn: Turn numbers, each with the epsilon of the turns up to it.
        schedule: The study's own.
        others: With the same epsilon and delta; those that cannot be are left out.
    """

    plan: Plan
    epsilon: float
    delta: float
    by_turn: tuple[tuple[int, float], ...]
    schedule: Schedule
    others: tuple[Schedule, ...]


def outlook(study: Study) -> Outlook:
    """Look ahead; some seconds of one processor.

    Args:
        study: With a private mechanism.

    Raises:
        PlanError: GLD-P100 the study has no privacy to plan; and as
            `accounting.solve`, with the nearest epsilon (GLD-P001).
    """
    plan = accounting.solve(study)
    if plan.noise_multiplier is None:
        raise PlanError(
            "GLD-P100",
            f"study {study.study.name!r} adds no noise: there is nothing to plan",
            why='privacy.mechanism = "none" gives no epsilon at any number of rounds.',
            fix='Set privacy.mechanism = "site-noise".',
        )
    whole = accounting.confirm(study, plan)
    own = Schedule(
        study.training.rounds, study.training.sample_rate, plan.noise_multiplier, 1.0
    )
    return Outlook(
        plan=plan,
        epsilon=whole,
        delta=study.privacy.delta,
        by_turn=tuple(_by_turn(study, plan, whole)),
        schedule=own,
        others=tuple(_others(study, own)),
    )


def turns_that_fit(
    turn_event: Event, num_turns: int, *, epsilon: float, delta: float
) -> int:
    """How many turns with this noise cost no more than epsilon; about a second.

    Args:
        turn_event: One turn's mechanism.
        num_turns: Most that are of interest.
        epsilon: What is there.
        delta: Of the study.

    Returns:
        0 to `num_turns`; never too many.
    """
    fits, beyond = 0, num_turns + 1
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        cost = accounting.epsilon([(turn_event, middle)], delta, grid="coarse")
        fits, beyond = (middle, beyond) if cost <= epsilon else (fits, middle)
    return fits


def _by_turn(study: Study, plan: Plan, whole: float) -> Iterator[tuple[int, float]]:
    event = accounting.turn_event(study, plan)
    last = plan.num_turns
    stride = max(1, math.ceil(last / MOST_POINTS))
    for turn_no in range(stride, last, stride):
        cost = accounting.epsilon(
            [(event, turn_no)], study.privacy.delta, grid="coarse"
        )
        yield turn_no, min(cost, whole)
    yield last, whole


def _others(study: Study, own: Schedule) -> Iterator[Schedule]:
    if study.statistics is not None:
        return
    rounds, rate = own.rounds, own.sample_rate
    asked = [(rounds // 4, rate), (rounds // 2, rate), (2 * rounds, rate)]
    asked += [(rounds, min(1.0, factor * rate)) for factor in (2, 4)] + [(rounds, 1.0)]
    for other_rounds, other_rate in dict.fromkeys(asked):
        if other_rounds < 1 or (other_rounds, other_rate) == (rounds, rate):
            continue
        changes = {"rounds": other_rounds, "sample_rate": other_rate}
        training = study.training.model_copy(update=changes)
        try:
            plan = accounting.solve(study.model_copy(update={"training": training}))
        except PlanError:
            continue
        assert plan.noise_multiplier is not None
        noise = _noise(other_rounds, other_rate, plan.noise_multiplier)
        yield Schedule(
            other_rounds,
            other_rate,
            plan.noise_multiplier,
            noise / _noise(rounds, rate, own.noise_multiplier),
        )


def _noise(rounds: int, sample_rate: float, noise_multiplier: float) -> float:
    return noise_multiplier / (sample_rate * math.sqrt(rounds))
