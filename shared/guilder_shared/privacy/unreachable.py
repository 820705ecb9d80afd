"""What to say of a study whose promise no noise can keep: the nearest that can be kept.

Numbers in, an error out. This module computes no epsilon and knows no site.

Review, mathematics: a nearest epsilon is rounded upwards, so that what is said can be
had. All inputs are public constants of the study.
Review, crash order: pure functions; nothing is durable here and nothing is sent.
"""

import math

from guilder_shared.errors import PlanError
from guilder_shared.privacy import noise
from guilder_shared.privacy.search import MAX_NOISE_MULTIPLIER
from guilder_shared.study import Study

LEAST_DELTA = 1e-12  # far below it privacy loss distributions cut too much off
_WITH_MOST_NOISE = f"even with noise_multiplier {MAX_NOISE_MULTIPLIER:g}"


def promise(study: Study, num_steps: int, nearest: float) -> PlanError:
    """The study's own epsilon cannot be reached.

    Args:
        study: Names epsilon, delta and schedule.
        num_steps: Noised sums in all.
        nearest: What they cost with the largest noise.
    """
    privacy, training, num_turns = study.privacy, study.training, study.num_turns
    asked = f"epsilon {privacy.epsilon:g} at delta {privacy.delta:g} cannot be reached"
    if math.isinf(nearest):
        return PlanError(
            "GLD-P001",
            f"{asked}: what is computed takes more of delta.",
            fix="Set privacy.delta to at least "
            f"{_least_delta(num_steps, privacy.epsilon):g}.",
        )
    fewer = "lower rounds, local_steps or sample_rate"
    what = f"{_turns(num_turns)} of {training.local_steps} steps at sample_rate "
    what += f"{training.sample_rate:g}"
    if study.statistics is not None:
        what = f"{_turns(num_turns)} of {len(study.statistics.ask)} questions"
        fewer = (
            "ask fewer questions" if num_steps > num_turns else "raise privacy.delta"
        )
    return PlanError(
        "GLD-P001",
        f"{asked}: {what} cost {_upwards(nearest)} {_WITH_MOST_NOISE}.",
        fix=f"Set privacy.epsilon to at least {_upwards(nearest)}, or {fewer}.",
    )


def metrics(study: Study, epsilon: float, nearest: float) -> PlanError:
    """The share of epsilon that charged metrics may cost cannot be reached."""
    privacy = study.privacy
    asked = f"epsilon {epsilon:g} at delta {privacy.delta:g}"
    if math.isinf(nearest):
        least = _least_delta(study.num_turns, epsilon)
        return PlanError(
            "GLD-P110",
            f"the charged metrics cannot cost {asked}: what is computed takes more of "
            "delta.",
            fix=f"Set privacy.delta to at least {least:g}.",
        )
    share = _upwards(nearest / privacy.epsilon)
    return PlanError(
        "GLD-P110",
        f"the charged metrics cannot cost {asked}: {_turns(study.num_turns)} cost "
        f"{_upwards(nearest)} {_WITH_MOST_NOISE}.",
        fix=f"Raise evaluation.share to at least {share}, or lower training.rounds.",
    )


def _turns(num: int) -> str:
    return "1 turn" if num == 1 else f"{num} turns"


def _upwards(value: float) -> str:
    """Three digits, never below the value."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / unit * (1 - 1e-12)) * unit:.3g}"


def _least_delta(num_steps: int, epsilon: float) -> float:
    """The first power of ten of which the arithmetic takes no more than a half."""
    delta, loose = LEAST_DELTA, 2 * epsilon + 1  # what is known of epsilon meanwhile
    while noise.residue(num_steps, epsilon=loose, delta=delta).delta > delta / 2:
        delta *= 10
    return float(f"{delta:.0e}")
