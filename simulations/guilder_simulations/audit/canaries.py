"""Canaries in the gradient: one direction each, through the code that trains.

The attacker is the strongest the promise is made against: he knows every other row,
chooses the weights of every turn, and sees what every turn releases. `fit` itself is
called, with the study's own schedule, draws, clip norm, noise and divisor; the model is
a linear one with an input a canary, so that a canary's gradient points where no other
does. This module bounds nothing.

Review, mathematics. Each canary is one unit, in or out by its own fair coin. Its
gradient is many clip norms long: what enters is what clipping leaves. The learning rate
is so small that the weights stay at zero for what the gradients notice; it, and SGD in
place of another optimizer, act on the noised sum only and are no part of the promise.
Turns are as many as the plan charges, spare ones included.
Review, crash order: made-up rows, in memory only; no ledger, no charge, nothing sent.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guilder_shared.errors import PlanError
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples

FEWEST, MOST = 100, 5_000  # above, memory grows with the square
ROWS_OF_A_PERSON = 2
_CLIP_NORMS = 64  # how long an input is, before clipping: half of it is the gradient


def included(num: int, seed: int) -> NDArray[np.bool_]:
    """One fair coin a canary, shape (canaries,)."""
    rng = np.random.Generator(np.random.PCG64([seed, 0x0C01]))
    return rng.integers(0, 2, num).astype(np.bool_)


def check(study: Study, num: int) -> None:
    """Refuse what canaries cannot audit, before anything is computed.

    Raises:
        PlanError: GLD-P105 the unit is a site; GLD-P106 nothing is promised; GLD-P107
            too few or too many canaries.
    """
    if study.privacy.mechanism == "none":
        raise PlanError(
            "GLD-P106",
            'privacy.mechanism = "none" promises nothing that could be audited.',
            fix='Audit a study with mechanism = "site-noise".',
        )
    if study.privacy.unit == "site":
        raise PlanError(
            "GLD-P105",
            'privacy.unit = "site": one run holds a single unit, hence one canary.',
            why="One coin shows no epsilon above 0 at any useful confidence.",
            fix="Rely on `guilder client check`, which removes the unit and compares.",
        )
    if not FEWEST <= num <= MOST:
        raise PlanError(
            "GLD-P107",
            f"{num} canaries; {FEWEST} to {MOST:,} can be used.",
            why="Fewer show too little, more need too much memory.",
            fix="Take --canaries 1000.",
        )


def scores(
    study: Study,
    plan: Plan,
    coins: NDArray[np.bool_],
    *,
    seed: int,
    watch: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """Train with those canaries that are in, and score them all.

    Args:
        study: As it would be offered.
        plan: As it was confirmed.
        coins: Which canaries are in, shape (canaries,).
        seed: Keys draws and noise.
        watch: Told the number of each turn.

    Returns:
        What left in each canary's direction, summed over turns, shape (canaries,):
        larger where it was in.

    Raises:
        PlanError: As `fit`.
    """
    from guilder_shared.training.fit import fit

    played, length = _played(study, plan, len(coins))
    examples = _examples(study, coins, length)
    start = registry.initial(played)
    total = np.zeros(len(coins))
    for turn_no in range(1, plan.num_turns + 1):
        update = fit(
            start,  # each turn anew: the server chooses the weights
            played,
            plan,
            examples,
            public_size=len(coins),
            keys=TurnKeys.seeded(seed, site="audit", round_no=turn_no),
        )
        total += update["0.weight"].reshape(-1)
        if watch is not None:
            watch(turn_no)
    return total


def _played(study: Study, plan: Plan, num: int) -> tuple[Study, float]:
    """The study over a linear model of `num` inputs, and the length of an input."""
    privacy, training = study.privacy, study.training
    assert plan.noise_multiplier is not None
    length = _CLIP_NORMS * max(1.0, privacy.clip_norm)
    # What all weights may move in a turn, by input, is 1e-4 of what a loss notices.
    reach = length * (1 + 8 * plan.noise_multiplier) + num
    divisor = training.sample_rate * num
    rate = 1e-4 * divisor / (training.local_steps * privacy.clip_norm * reach)
    data: dict[str, Any] = {"kind": "table", "dataset": "canaries", "target": "target"}
    if privacy.unit == "person":
        data["person"] = "person"
    column = {"kind": "number", "low": 0, "high": 1}
    data["columns"] = {f"canary-{i:05d}": column for i in range(num)}
    whole = study.model_dump(mode="json", by_alias=True, exclude_none=True)
    for key in ("momentum", "betas", "floor", "average", "augment"):
        whole["training"].pop(key, None)
    whole["training"] |= {"optimizer": "sgd", "learning_rate": rate}
    whole["study"]["recipe"] = "tabular-classification"
    whole |= {"data": data, "model": {"name": "logistic"}}
    whole.pop("simulation", None)
    return Study.model_validate(whole), length


def _examples(study: Study, coins: NDArray[np.bool_], length: float) -> Examples:
    there = np.flatnonzero(coins)
    each = ROWS_OF_A_PERSON if study.privacy.unit == "person" else 1
    whose = np.repeat(there, each)
    inputs = np.zeros((len(whose), len(coins)), dtype=np.float32)
    inputs[np.arange(len(whose)), whose] = length
    targets = np.ones(len(whose), dtype=np.float32)
    units = whose.astype(np.int64) if each > 1 else None
    return Examples(inputs, targets, units)
