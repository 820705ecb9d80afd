"""What private steps cost: events as data, epsilon recomputed from them.

Solving a study's noise, confirming somebody else's plan, and the numbers the ledger
charges. The accountants themselves are in `bounds`. This module knows no data, no
model and no torch.

Review, mathematics. Adjacency: add or remove one unit, a record or a person with all
its rows at the site; of a site, all its rows against none (zero-out; that it takes part
is public). One step is a Poisson-sampled Gaussian of sensitivity C(1 + s) and standard
deviation noise_multiplier x C, whatever the unit, so its event carries
noise_multiplier / (1 + s); whose event it is stands in the study beside it. What is
charged by person does not bound single records, nor the reverse (decision 014). Steps
compose adaptively; equal events are merged. A plan comes from a server that is not
trusted: it is confirmed, not believed.
All inputs are public constants of the study.
Review, crash order: pure functions; nothing is durable here and nothing is sent.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

from guilder_shared.errors import PlanError, StudyError
from guilder_shared.messages import Plan
from guilder_shared.privacy import bounds, noise, prv
from guilder_shared.privacy.events import (
    MIN_NOISE_MULTIPLIER,
    Event,
    Leaf,
    gaussian_event,
    merge,
    self_composed,
    unprotected_event,
)
from guilder_shared.study import Study

Grid = Literal["coarse", "fine"]

SENSITIVITY_SLACK = 1e-3  # s: what float32 gradients may add to clip_norm
MAX_NOISE_MULTIPLIER = 4096.0
MOST_STEPS = 1_000_000  # ten times as many take minutes of both sides' processors


def validate_study(study: Study) -> None:
    """Refuse what this version cannot keep as a promise.

    Raises:
        StudyError: GLD-C091 the schedule is too long to be accounted in seconds.
        PlanError: GLD-P011 joint noise.
    """
    privacy, training = study.privacy, study.training
    num_turns = training.rounds + study.aggregation.spare_turns
    if num_turns * training.local_steps > MOST_STEPS:
        raise StudyError(
            "GLD-C091",
            f"{num_turns:,} turns of {training.local_steps:,} steps are "
            f"{num_turns * training.local_steps:,} private steps; at most "
            f"{MOST_STEPS:,} can be accounted for in one study",
            why="Server and sites each compute its epsilon before they agree to it.",
            fix="Lower training.rounds or training.local_steps.",
        )
    if privacy.mechanism == "joint-noise":
        raise PlanError(
            "GLD-P011",
            'privacy.mechanism = "joint-noise" is not built yet.',
            why="It needs a secure sum over all sites.",
            fix='Use mechanism = "site-noise": each site protects its own rows.',
        )


def turn_event(study: Study, plan: Plan) -> Event:
    """The event of one turn: `local_steps` noised sums."""
    return _steps_event(study, plan, study.training.local_steps)


def schedule_event(study: Study, plan: Plan) -> Event:
    """The event of all turns of the plan, merged into one self-composition."""
    return _steps_event(study, plan, study.training.local_steps * plan.num_turns)


def _steps_event(study: Study, plan: Plan, num_steps: int) -> Event:
    if plan.noise_multiplier is None:
        return unprotected_event()
    slack = max(plan.sensitivity_slack, SENSITIVITY_SLACK)
    step = gaussian_event(
        plan.noise_multiplier / (1 + slack), sample_rate=study.training.sample_rate
    )
    return self_composed(step, num_steps)


def epsilon(
    event_counts: Iterable[tuple[Event, int]], delta: float, *, grid: Grid = "fine"
) -> float:
    """Epsilon of all these events together, at this delta.

    Args:
        event_counts: Events in the form of `docs/ledger.md`, each with how often.
        delta: In (0, 1); the arithmetic's share is taken from it first.
        grid: "coarse" is quick and never too small; "fine" is 1e-4, halved until
            epsilon moves by less than 1 %, and checked against the Renyi figure.

    Returns:
        An upper bound. 0 for no events, infinity if any is unprotected.

    Raises:
        PlanError: GLD-P003 an event is malformed; GLD-P004 the two accountants
            contradict each other.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1), not {delta!r}")
    leaves = merge(event_counts)
    if leaves is None:
        return math.inf
    return bounds.epsilon(leaves, delta, fine=grid == "fine")


def renyi(event: Event, orders: Sequence[int]) -> list[float]:
    """Renyi divergence bounds of one event, for the ledger's filters.

    Args:
        event: As in `epsilon`.
        orders: Integers above 1.

    Returns:
        One number an order; infinity where the event is unprotected. The noise's
        arithmetic (`residue`) is not in them: charge it once per budget.
    """
    leaves = merge([(event, 1)])
    if leaves is None:
        return [math.inf] * len(orders)
    return list(bounds.renyi(leaves, tuple(orders)))


def evidence(turn_event: Event, num_turns: int, delta: float) -> dict[str, Any] | None:
    """What three accountants say of a schedule, to be kept with its acceptance.

    Args:
        turn_event: One turn's mechanism.
        num_turns: Rounds and spare turns.
        delta: Of the study.

    Returns:
        `pld` (tight, residue included; what plans rest on), `rdp` (loose), `prv` (an
        upper bound by another method; None where it would take too long), each an
        epsilon at `delta`, and `versions`. None for an unprotected event.

    Raises:
        PlanError: GLD-P004 two of them contradict each other.
    """
    leaves = merge([(turn_event, num_turns)])
    if leaves is None:
        return None
    tight = bounds.epsilon(leaves, delta, fine=True)
    arithmetic = bounds.on_grid(leaves, delta, bounds.COARSE)
    eps_error = max(1e-4, min(0.01, tight / 50))
    third = prv.epsilon(leaves, arithmetic.ideal_delta, eps_error)
    if third is not None:
        bounds.demand_near(tight - arithmetic.arithmetic, third.lower, third.upper)
    loose = bounds.renyi_epsilon(leaves, delta, None)
    return {
        "delta": delta,
        "pld": _short(tight),
        "rdp": _short(loose),
        "prv": None if third is None else _short(third.upper),
        "versions": {name: version(name) for name in ("dp-accounting", "scipy")},
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def residue(
    event_counts: Iterable[tuple[Event, int]], *, epsilon: float, delta: float
) -> noise.Residue:
    """What the noise's arithmetic adds to these events; see `noise.residue`."""
    num_steps = bounds.num_steps(merge(event_counts) or ())
    return noise.residue(num_steps, epsilon=epsilon, delta=delta)


def solve(study: Study) -> Plan:
    """Find the least noise that keeps the study's promise over rounds + spare turns.

    Returns:
        The plan every site confirms; noise None where the mechanism is "none".

    Raises:
        PlanError: GLD-P001 no noise is enough, with the nearest epsilon; and what
            `validate_study` and `confirm` raise.
    """
    validate_study(study)
    num_turns = study.training.rounds + study.aggregation.spare_turns
    if study.privacy.mechanism == "none":
        return Plan(None, num_turns, SENSITIVITY_SLACK)
    for interval in (bounds.COARSE, bounds.FINE, bounds.FINE / 10):
        effective = _least_noise(study, num_turns, interval)
        plan, cost = _settle(study, num_turns, effective)
        # Short schedules are exact on the coarse grid; thousands of steps are not,
        # and would be given more noise than they need.
        if cost >= 0.99 * study.privacy.epsilon or effective == MIN_NOISE_MULTIPLIER:
            break
    return plan


def _settle(study: Study, num_turns: int, effective: float) -> tuple[Plan, float]:
    """The plan with this noise, raised until its fine epsilon keeps the promise."""
    while True:
        plan = _plan(effective, num_turns)
        cost = _fine(study, plan)
        if cost <= study.privacy.epsilon:
            return plan, cost
        effective *= 1.0005


def _plan(effective: float, num_turns: int) -> Plan:
    # Six decimals, upwards: short in JSON and never below what is needed.
    multiplier = math.ceil(effective * (1 + SENSITIVITY_SLACK) * 1e6) / 1e6
    return Plan(multiplier, num_turns, SENSITIVITY_SLACK)


def _fine(study: Study, plan: Plan) -> float:
    return epsilon([(schedule_event(study, plan), 1)], study.privacy.delta)


def _least_noise(study: Study, num_turns: int, interval: float) -> float:
    """Effective noise multiplier on one grid, to 1 part in 10,000, from above."""
    from scipy.optimize import brentq  # type: ignore[import-untyped]  # no stubs

    num_steps = study.training.local_steps * num_turns

    @cache
    def excess(log_noise: float) -> float:
        leaf = Leaf(math.exp(log_noise), study.training.sample_rate, num_steps)
        found = bounds.on_grid((leaf,), study.privacy.delta, interval)
        return found.epsilon + found.arithmetic - study.privacy.epsilon

    lowest, highest = math.log(MIN_NOISE_MULTIPLIER), math.log(MAX_NOISE_MULTIPLIER)
    high = min(max(_first_guess(study, num_turns), lowest), highest)
    while excess(high) > 0:
        if high >= highest:
            raise _unreachable(study, num_turns, excess(high) + study.privacy.epsilon)
        high = min(high + 0.1, highest)
    low = max(high - 0.1, lowest)
    while excess(low) <= 0:
        if low == lowest:
            return MIN_NOISE_MULTIPLIER
        high, low = low, max(low - 0.1, lowest)
    return math.exp(brentq(excess, low, high, xtol=1e-4)) * (1 + 1e-4)


def _first_guess(study: Study, num_turns: int) -> float:
    """Log noise multiplier at which the schedule is about one Gaussian of that cost.

    Source: the central limit of Bu et al. 2020, mu = q sqrt(T (exp(1/z^2) - 1)).
    """
    privacy, training = study.privacy, study.training
    num_steps = training.local_steps * num_turns
    tail = math.sqrt(2 * math.log(1 / privacy.delta))
    # eps = mu^2/2 + mu tail, solved for mu: a little too private, near enough
    mu = math.sqrt(tail**2 + 2 * privacy.epsilon) - tail
    if training.sample_rate == 1:
        return math.log(math.sqrt(num_steps) / mu)
    return -0.5 * math.log(math.log1p(mu**2 / (training.sample_rate**2 * num_steps)))


def _unreachable(study: Study, num_turns: int, nearest: float) -> PlanError:
    return PlanError(
        "GLD-P001",
        f"epsilon {study.privacy.epsilon:g} at delta {study.privacy.delta:g} cannot "
        f"be reached: {num_turns} turns of {study.training.local_steps} steps at "
        f"sample_rate {study.training.sample_rate:g} cost {nearest:.3g} even with "
        f"noise_multiplier {MAX_NOISE_MULTIPLIER:g}.",
        fix=f"Set privacy.epsilon to at least {nearest:.3g}, or lower rounds, "
        "local_steps or sample_rate.",
    )


def confirm(study: Study, plan: Plan) -> float:
    """Check a plan that somebody else solved, before anything is reserved for it.

    The plan comes from the server and is not trusted: its turns, slack and noise
    must be what this engine accounts for.

    Returns:
        Fine epsilon of the whole schedule, residue included; infinity where the
        mechanism is "none". About 0.8 s the first time.

    Raises:
        PlanError: GLD-P002 it costs more than the study says; GLD-P005 it does not
            belong to the study; and what `validate_study` and `epsilon` raise.
    """
    validate_study(study)
    check_plan(study, plan)
    if plan.noise_multiplier is None:
        return math.inf
    cost = _fine(study, plan)
    if cost > study.privacy.epsilon:
        raise PlanError(
            "GLD-P002",
            f"the plan costs epsilon {cost:.4g} at delta {study.privacy.delta:g}, "
            f"but the study promises {study.privacy.epsilon:g}.",
            why=f"noise_multiplier {plan.noise_multiplier:g} is too small for "
            f"{plan.num_turns} turns of {study.training.local_steps} steps.",
            fix="Submit the study again so that its plan is solved afresh.",
        )
    return cost


def check_plan(study: Study, plan: Plan) -> None:
    """Check that a plan is for this study and this engine; no epsilon is computed.

    Raises:
        PlanError: GLD-P005, with what differs.
    """
    num_turns = study.training.rounds + study.aggregation.spare_turns
    problem = ""
    if plan.num_turns != num_turns:
        problem = f"it covers {plan.num_turns} turns, the study has {num_turns}"
    elif plan.sensitivity_slack != SENSITIVITY_SLACK:
        problem = (
            f"its sensitivity slack is {plan.sensitivity_slack:g}, "
            f"this engine's is {SENSITIVITY_SLACK:g}"
        )
    elif (plan.noise_multiplier is None) != (study.privacy.mechanism == "none"):
        problem = f'its noise does not fit mechanism "{study.privacy.mechanism}"'
    elif plan.noise_multiplier is not None and not (
        MIN_NOISE_MULTIPLIER <= plan.noise_multiplier < math.inf
    ):
        problem = f"its noise_multiplier is {plan.noise_multiplier:g}"
    if problem:
        raise PlanError(
            "GLD-P005",
            f"the plan does not belong to the study: {problem}.",
            fix="Use one version of Guilder everywhere and submit the study again.",
        )
