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
from importlib.metadata import version
from typing import Any, Literal

from guilder_shared import tasks
from guilder_shared.errors import PlanError, StudyError
from guilder_shared.messages import Plan
from guilder_shared.privacy import bounds, noise, prv, unreachable
from guilder_shared.privacy.events import (
    MIN_NOISE_MULTIPLIER,
    Event,
    Leaves,
    discrete_gaussian_event,
    gaussian_event,
    laplace_event,
    merge,
    parallel,
    self_composed,
    unprotected_event,
)
from guilder_shared.privacy.search import Goal, least_noise
from guilder_shared.study import Study

Grid = Literal["coarse", "fine"]

SENSITIVITY_SLACK = 1e-3  # s: what float32 gradients may add to clip_norm
MOST_STEPS = 1_000_000  # ten times as many take minutes of both sides' processors


def validate_study(study: Study) -> None:
    """Refuse what this version cannot keep as a promise.

    Raises:
        StudyError: GLD-C091 the schedule is too long to be accounted in seconds;
            GLD-C133 its recipe has no charged metrics.
        PlanError: GLD-P011 joint noise.
    """
    privacy, training = study.privacy, study.training
    num_turns = study.num_turns
    if num_turns * training.local_steps > MOST_STEPS:
        raise StudyError(
            "GLD-C091",
            f"{num_turns:,} turns of {training.local_steps:,} steps are "
            f"{num_turns * training.local_steps:,} private steps; at most "
            f"{MOST_STEPS:,} can be accounted for in one study",
            why="Server and sites each compute its epsilon before they agree to it.",
            fix="Lower training.rounds or training.local_steps.",
        )
    charged = study.evaluation.on == "charged"
    if charged and not tasks.recipe(study.study.recipe).has_charged:
        raise StudyError(
            "GLD-C133",
            f"recipe {study.study.recipe!r} has no metrics that a site can be charged",
            why="Each must be a sum over units with a public bound.",
            fix='Set evaluation.on = "public-holdout" or "none".',
        )
    if privacy.mechanism == "joint-noise":
        raise PlanError(
            "GLD-P011",
            'privacy.mechanism = "joint-noise" is not built yet.',
            why="It needs a secure sum over all sites.",
            fix='Use mechanism = "site-noise": each site protects its own rows.',
        )


def turn_event(study: Study, plan: Plan) -> Event:
    """The event of one turn: `local_steps` noised sums, and a share of the metrics.

    Of a study of statistics: its whole release.
    """
    if study.statistics is not None:
        return _asked_event(study, plan, 1)
    return _both(study, plan, study.training.local_steps, 1)


def schedule_event(study: Study, plan: Plan) -> Event:
    """The event of all turns of the plan, merged into one self-composition."""
    if study.statistics is not None:
        return _asked_event(study, plan, plan.num_turns)
    num_steps = study.training.local_steps * plan.num_turns
    return _both(study, plan, num_steps, plan.num_turns)


def training_event(study: Study, plan: Plan) -> Event:
    """What the whole schedule costs a unit that is trained on, or asked about."""
    if study.statistics is not None:
        return schedule_event(study, plan)
    return _steps_event(study, plan, study.training.local_steps * plan.num_turns)


def _asked_event(study: Study, plan: Plan, num_turns: int) -> Event:
    assert study.statistics is not None
    if plan.noise_multiplier is None:
        return unprotected_event()
    make = {
        "gaussian": gaussian_event,
        "laplace": laplace_event,
        "discrete-gaussian": discrete_gaussian_event,
    }[study.statistics.noise]
    return self_composed(make(plan.noise_multiplier), _num_asked(study) * num_turns)


def _num_asked(study: Study) -> int:
    """Mechanisms in one release: all at once, or a question each (`training.asked`)."""
    assert study.statistics is not None
    joint = study.statistics.noise == "gaussian"
    return 1 if joint else len(study.statistics.ask)


def _both(study: Study, plan: Plan, num_steps: int, num_turns: int) -> Event:
    training = _steps_event(study, plan, num_steps)
    if plan.measuring_noise is None:
        return training
    measured = self_composed(gaussian_event(plan.measuring_noise), num_turns)
    return parallel([training, measured])


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
    cases = merge(event_counts)
    if cases is None:
        return math.inf
    return max(bounds.epsilon(case, delta, fine=grid == "fine") for case in cases)


def renyi(event: Event, orders: Sequence[int]) -> list[float]:
    """Renyi divergence bounds of one event, for the ledger's filters.

    Args:
        event: As in `epsilon`.
        orders: Integers above 1.

    Returns:
        One number an order; infinity where the event is unprotected. The noise's
        arithmetic (`residue`) is not in them: charge it once per budget.
    """
    cases = merge([(event, 1)])
    if cases is None:
        return [math.inf] * len(orders)
    found = (bounds.renyi(case, tuple(orders)) for case in cases)
    return [max(each) for each in zip(*found, strict=True)]


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
    cases = merge([(turn_event, num_turns)])
    if cases is None:
        return None
    found = [_three(case, delta) for case in cases]
    third = [each[2] for each in found if each[2] is not None]
    return {
        "delta": delta,
        "pld": _short(max(each[0] for each in found)),
        "rdp": _short(max(each[1] for each in found)),
        "prv": _short(max(third)) if len(third) == len(found) else None,
        "versions": {name: version(name) for name in ("dp-accounting", "scipy")},
    }


def _three(leaves: Leaves, delta: float) -> tuple[float, float, float | None]:
    """What each accountant says of the steps that one unit meets."""
    tight = bounds.epsilon(leaves, delta, fine=True)
    loose = bounds.renyi_epsilon(leaves, delta, None)
    arithmetic = bounds.on_grid(leaves, delta, bounds.COARSE)
    eps_error = max(1e-4, min(0.01, tight / 50))
    third = prv.epsilon(leaves, arithmetic.ideal_delta, eps_error)
    if third is None:
        return tight, loose, None
    bounds.demand_near(tight - arithmetic.arithmetic, third.lower, third.upper)
    return tight, loose, third.upper


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def residue(
    event_counts: Iterable[tuple[Event, int]], *, epsilon: float, delta: float
) -> noise.Residue:
    """What the noise's arithmetic adds to these events; see `noise.residue`."""
    num_steps = max(bounds.num_steps(case) for case in merge(event_counts) or ((),))
    return noise.residue(num_steps, epsilon=epsilon, delta=delta)


def solve(study: Study) -> Plan:
    """Find the least noise that keeps the study's promise over rounds + spare turns.

    Returns:
        The plan every site confirms; noise None where the mechanism is "none".

    Raises:
        PlanError: GLD-P001 no noise is enough, with the nearest epsilon, GLD-P110 none
            is for the charged metrics; and what `validate_study` and `confirm` raise.
    """
    validate_study(study)
    num_turns = study.num_turns
    if study.privacy.mechanism == "none":
        return Plan(None, num_turns, SENSITIVITY_SLACK)
    trained = least_noise(_training_goal(study, num_turns))
    measuring = _measuring_goal(study, num_turns)
    measured = None if measuring is None else least_noise(measuring)
    return Plan(trained, num_turns, SENSITIVITY_SLACK, measured)


def _training_goal(study: Study, num_turns: int) -> Goal:
    privacy, training = study.privacy, study.training
    if study.statistics is not None:  # sums are exact: no slack
        num_asked = _num_asked(study) * num_turns
        return Goal(
            privacy.epsilon,
            privacy.delta,
            1.0,
            num_asked,
            0.0,
            lambda nearest: unreachable.promise(study, num_asked, nearest),
            study.statistics.noise,
        )
    num_steps = training.local_steps * num_turns
    return Goal(
        privacy.epsilon,
        privacy.delta,
        training.sample_rate,
        num_steps,
        SENSITIVITY_SLACK,
        lambda nearest: unreachable.promise(study, num_steps, nearest),
    )


def _measuring_goal(study: Study, num_turns: int) -> Goal | None:
    """What a held-out unit may pay; nobody trains on it. The sums are exact: slack 0.

    Each turn puts by an equal part, so that one release after the last round is paid
    for: T Gaussians of noise z cost what one of noise z / sqrt(T) does, exactly.
    """
    share, privacy = study.evaluation.share, study.privacy
    if share is None:
        return None
    epsilon = share * privacy.epsilon

    def refused(nearest: float) -> PlanError:
        return unreachable.metrics(study, epsilon, nearest)

    return Goal(epsilon, privacy.delta, 1.0, num_turns, 0.0, refused)


def _fine(event: Event, delta: float) -> float:
    return epsilon([(event, 1)], delta)


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
    delta = study.privacy.delta
    cost = _fine(training_event(study, plan), delta)
    _demand(cost, study.privacy.epsilon, study, plan.noise_multiplier, plan)
    if plan.measuring_noise is None:
        return cost
    measured = self_composed(gaussian_event(plan.measuring_noise), plan.num_turns)
    most = (study.evaluation.share or 0.0) * study.privacy.epsilon
    _demand(_fine(measured, delta), most, study, plan.measuring_noise, plan)
    return _fine(schedule_event(study, plan), delta)


def _demand(cost: float, most: float, study: Study, noise: float, plan: Plan) -> None:
    if cost <= most:
        return
    raise PlanError(
        "GLD-P002",
        f"the plan costs epsilon {cost:.4g} at delta {study.privacy.delta:g}, "
        f"but the study promises {most:g}.",
        why=f"noise_multiplier {noise:g} is too small for {plan.num_turns} turns.",
        fix="Submit the study again so that its plan is solved afresh.",
    )


def check_plan(study: Study, plan: Plan) -> None:
    """Check that a plan is for this study and this engine; no epsilon is computed.

    Raises:
        PlanError: GLD-P005, with what differs.
    """
    problem = ""
    private = study.privacy.mechanism != "none"
    if plan.num_turns != study.num_turns:
        problem = f"it covers {plan.num_turns} turns, the study has {study.num_turns}"
    elif plan.sensitivity_slack != SENSITIVITY_SLACK:
        problem = (
            f"its sensitivity slack is {plan.sensitivity_slack:g}, "
            f"this engine's is {SENSITIVITY_SLACK:g}"
        )
    elif (plan.noise_multiplier is not None) != private:
        problem = f'its noise does not fit mechanism "{study.privacy.mechanism}"'
    elif (plan.measuring_noise is None) != (study.evaluation.share is None):
        problem = f'its noise does not fit evaluation.on = "{study.evaluation.on}"'
    for noise_ in (plan.noise_multiplier, plan.measuring_noise):
        if noise_ is not None and not MIN_NOISE_MULTIPLIER <= noise_ < math.inf:
            problem = problem or f"its noise_multiplier is {noise_:g}"
    if problem:
        raise PlanError(
            "GLD-P005",
            f"the plan does not belong to the study: {problem}.",
            fix="Use one version of Guilder everywhere and submit the study again.",
        )
