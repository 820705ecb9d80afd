"""One audit from beginning to end.

    1 plan   2 coins   3 train   4 guess   5 bound   6 attack the finished model

This module computes no bound itself and prints nothing.

Review, mathematics: both bounds hold with the stated confidence each, over the coins,
whatever the training code does. The alarm has an error of its own, 1e-3 twice: a
claim that is contradicted is tried again with coins, draws and noise of another seed,
and counts as contradicted if it is again. So the right code is accused once in 1e6.
Review, crash order: in memory and in a folder that is removed; nothing is charged.
"""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.study import Study
from guilder_simulations.audit import bounds, canaries, curves, membership
from guilder_simulations.audit.bounds import Guesses
from guilder_simulations.audit.finding import Audit

CONFIDENCE = 0.95
ALARM_ERROR = 1e-3  # chance of accusing the right code, in each of two trials
CANARIES = 1_000

Watch = Callable[[str], None]


def carry_out(
    study: Study,
    *,
    num_canaries: int = CANARIES,
    seed: int,
    confidence: float = CONFIDENCE,
    attack_model: bool = True,
    watch: Watch | None = None,
) -> Audit:
    """Audit a study; no site takes part.

    Args:
        study: With noise; its digest is audited, whatever `[simulation]` says.
        num_canaries: Units put in or left out by coins.
        seed: Of coins, draws and noise.
        confidence: Of the bounds, in (0, 1).
        attack_model: Also simulate the study and attack its model.
        watch: Told what is being done.

    Returns:
        What was found; a contradicted claim does not raise here.

    Raises:
        PlanError: GLD-P105, GLD-P106, GLD-P107; and what `accounting.solve` raises.
    """
    say = watch or (lambda _: None)
    registry.demand_model(study)
    canaries.check(study, num_canaries)
    plan = accounting.solve(study)  # 1
    coins = canaries.included(num_canaries, seed)  # 2
    start = time.monotonic()
    say(f"{num_canaries} canaries through {plan.num_turns} turns")
    found = canaries.scores(study, plan, coins, seed=seed)  # 3
    guesses = bounds.guess(found, coins)  # 4
    error = 1 - confidence
    lower = lower_bound(study, plan, num_canaries, guesses, error=error)  # 5
    seconds = time.monotonic() - start
    claim = curves.of_study(study, plan)
    epsilon = accounting.confirm(study, plan)

    def again() -> list[Guesses]:
        say("the claim is contradicted; again, with other coins")
        other = int(np.random.SeedSequence([seed, 0xA6A1]).generate_state(1)[0])
        tossed = canaries.included(num_canaries, other)
        return bounds.guess(canaries.scores(study, plan, tossed, seed=other), tossed)

    untried = membership.why_not(study) if attack_model else "nobody asked for it"
    if not untried:
        say("a simulated run, to attack its model")
    return Audit(
        study=study.study.name,
        digest=study.digest(),
        unit=study.privacy.unit,
        epsilon=epsilon,
        delta=study.privacy.delta,
        lower_bound=lower,
        one_run=bounds.one_run(
            num_canaries, guesses, delta=study.privacy.delta, error=error
        ),
        confidence=confidence,
        outcome=_outcome(again, num_canaries, guesses, claim, lower > epsilon),
        canaries=num_canaries,
        guesses=tuple((each.made, each.right) for each in guesses),
        turns=plan.num_turns,
        seed=seed,
        seconds=seconds,
        membership=None if untried else membership.attack(study),  # 6
        untried=untried,
        allowed={rate: claim.power(rate) for rate in membership.RATES},
    )


def lower_bound(
    study: Study, plan: Plan, num: int, guesses: Sequence[Guesses], *, error: float
) -> float:
    """Epsilon of the study's schedule at the most noise the guesses contradict.

    Args:
        study: Names schedule and delta.
        plan: Its noise is where the search begins.
        num: Canaries.
        guesses: By each rule.
        error: Chance of a bound that is too high.

    Returns:
        At the study's delta; 0 where no noise is contradicted, infinity beyond 20.
    """

    def contradicted(log_share: float) -> bool:
        curve = curves.of_study(study, plan, noise_share=math.exp(-log_share))
        return bounds.any_contradicts(num, guesses, curve, error)

    # Less noise claims less: once a share is not contradicted no smaller one is.
    low, step = -4.0, 0.25
    if not contradicted(low):
        return 0.0
    high = low
    while contradicted(high):
        low, high = high, high + step
        curve = curves.of_study(study, plan, noise_share=math.exp(-high))
        if math.isinf(curves.epsilon(curve, study.privacy.delta)):
            break
    for _ in range(5):
        middle = (low + high) / 2
        low, high = (middle, high) if contradicted(middle) else (low, middle)
    curve = curves.of_study(study, plan, noise_share=math.exp(-low))
    return curves.epsilon(curve, study.privacy.delta)


def _outcome(
    again: Callable[[], Sequence[Guesses]],
    num: int,
    guesses: Sequence[Guesses],
    claim: curves.TradeOff,
    above: bool,
) -> str:
    """What to call it; `again` is a second, independent trial, asked for if need be."""
    if bounds.any_contradicts(num, guesses, claim, ALARM_ERROR):
        repeated = bounds.any_contradicts(num, again(), claim, ALARM_ERROR)
        return "contradicted" if repeated else "doubtful"
    return "doubtful" if above else "consistent"
