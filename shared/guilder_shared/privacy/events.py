"""Private mechanisms as data: the JSON form of events that ledgers and reports hold.

The names follow dp_accounting's DpEvent classes. This module computes no epsilon and
imports no accountant; it only builds events, and reads untrusted ones strictly.

Review, mathematics: an event is a worst case over add/remove neighbours and holds
public constants only. Merging equal events is exact: composition is commutative. Where
units are dealt to mechanisms by a function of their own identity (`parallel`), a unit
moves one of them alone and pays for that one: each case is bounded by itself, and the
largest bounds them all (McSherry 2009, parallel composition).
Review, crash order: pure data.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from guilder_shared.errors import PlanError

Event = dict[str, Any]  # JSON-able; the forms below and no other

MIN_NOISE_MULTIPLIER = 0.05  # below it "noise" protects nobody
MAX_STEPS = 10_000_000
MOST_CASES = 16
GAUSSIAN, LAPLACE, DISCRETE = "gaussian", "laplace", "discrete-gaussian"
_MAX_DEPTH = 4
_LARGEST = 1e6


class Leaf(NamedTuple):
    """All equal steps of a composition; Gaussian ones unless `kind` says otherwise."""

    noise_multiplier: float
    sample_rate: float  # 1 = not sampled
    num_steps: int
    kind: str = GAUSSIAN


Leaves = tuple[Leaf, ...]
_Counts = Counter[tuple[str, float, float]]


def gaussian_event(noise_multiplier: float, *, sample_rate: float = 1.0) -> Event:
    """One noised sum of sensitivity 1, on a Poisson sample if the rate is below 1."""
    step: Event = {"event": "gaussian", "noise_multiplier": noise_multiplier}
    if sample_rate == 1:
        return step
    return {
        "event": "poisson-sampled",
        "sampling_probability": sample_rate,
        "of": step,
    }


def laplace_event(noise_multiplier: float) -> Event:
    """A count of sensitivity 1 with Laplace noise of this scale."""
    return {"event": LAPLACE, "noise_multiplier": noise_multiplier}


def discrete_gaussian_event(noise_multiplier: float) -> Event:
    """A whole count of sensitivity 1 with discrete Gaussian noise of this parameter."""
    return {"event": DISCRETE, "noise_multiplier": noise_multiplier}


def joint_noise_multiplier(noise_multipliers: Iterable[float]) -> float:
    """Of several Gaussian answers computed on one draw: they are one mechanism.

    The vector of all answers, each over its own noise's standard deviation, has the
    root of the sum of 1 / noise_multiplier^2 as its sensitivity. To charge the answers
    as if each had a draw of its own would count the sampling's secrecy twice.

    Args:
        noise_multipliers: Of each answer, over its own sensitivity; at least one.
    """
    return 1 / math.sqrt(sum(each**-2 for each in noise_multipliers))


def self_composed(event: Event, count: int) -> Event:
    """The same event `count` times, each possibly chosen after seeing the last."""
    return {"event": "self-composed", "count": count, "of": event}


def parallel(events: Iterable[Event]) -> Event:
    """Mechanisms on different units: each unit is in one of them, always the same."""
    return {"event": "parallel", "of": list(events)}


def unprotected_event() -> Event:
    """Something left that no mechanism protects: epsilon is infinite."""
    return {"event": "none-protected"}


def merge(event_counts: Iterable[tuple[Event, int]]) -> tuple[Leaves, ...] | None:
    """Flatten events, merge equal steps, and tell apart what a unit may meet.

    Returns:
        Cases, of which every unit meets one: leaves in a fixed order. One case where
        no event is `parallel`; where there would be more than `MOST_CASES`, one with
        the most of each step, which costs more than any. None if any event is
        unprotected.

    Raises:
        PlanError: GLD-P003, an event is not of the documented form or its numbers
            are outside what is accounted.
    """
    cases: list[_Counts] = [Counter()]
    protected = True
    for event, count in event_counts:
        found = _cases(event, _whole(count), _MAX_DEPTH)
        if found is None:
            protected = False
            continue
        cases = _distinct(old + new for old in cases for new in found)
        if len(cases) > MOST_CASES:
            cases = [_most(cases)]
    if any(case.total() > MAX_STEPS for case in cases):
        raise _malformed(f"more than {MAX_STEPS} steps")
    if not protected:
        return None
    return tuple(
        tuple(
            Leaf(noise, rate, count, kind)
            for (kind, noise, rate), count in sorted(case.items())
        )
        for case in cases
    )


def _distinct(cases: Iterable[_Counts]) -> list[_Counts]:
    return list({tuple(sorted(case.items())): case for case in cases}.values())


def _most(cases: Iterable[_Counts]) -> _Counts:
    """At least as many of each step as in any case."""
    most: _Counts = Counter()
    for case in cases:
        most |= case
    return most


def _cases(event: Event, count: int, depth: int) -> list[_Counts] | None:
    """What one unit may meet, by step and how often; None where it is unprotected."""
    if depth == 0 or not isinstance(event, dict):
        raise _malformed("not an object, or nested too deeply")
    match event:
        case {"event": "none-protected", **rest} if not rest:
            return None
        case {"event": "self-composed", "count": times, "of": inner, **rest} if (
            not rest
        ):
            return _cases(inner, count * _whole(times), depth - 1)
        case {"event": "parallel", "of": [_, _, *_] as parts, **rest} if (
            not rest and len(parts) <= MOST_CASES
        ):
            found = [_cases(part, count, depth - 1) for part in parts]
            protected = [case for each in found if each is not None for case in each]
            return None if None in found else _distinct(protected)
        case {
            "event": "poisson-sampled",
            "sampling_probability": rate,
            "of": {"event": "gaussian", "noise_multiplier": noise, **inner_rest},
            **rest,
        } if not rest and not inner_rest:
            return [Counter({(GAUSSIAN, _noise(noise), _rate(rate)): count})]
        case {
            "event": "gaussian" | "laplace" | "discrete-gaussian" as kind,
            "noise_multiplier": noise,
            **rest,
        } if not rest:
            return [Counter({(kind, _noise(noise), 1.0): count})]
    raise _malformed("unknown kind or unknown keys")


def _whole(count: object) -> int:
    if type(count) is not int or not 0 < count <= MAX_STEPS:
        raise _malformed(f"a count is not a whole number in 1 .. {MAX_STEPS}")
    return count


def _number(value: object) -> float:
    # Compared as it is: a JSON integer may be too large to become a float.
    if type(value) not in (int, float) or not -_LARGEST < value < _LARGEST:  # type: ignore[operator]
        raise _malformed(f"a parameter is not a number within {_LARGEST:g}")
    return float(value)  # type: ignore[arg-type]


def _noise(value: object) -> float:
    noise = _number(value)
    if noise < MIN_NOISE_MULTIPLIER:
        raise _malformed(f"noise_multiplier {noise:g} < {MIN_NOISE_MULTIPLIER}")
    return noise


def _rate(value: object) -> float:
    rate = _number(value)
    if not 0 < rate <= 1:
        raise _malformed(f"sampling_probability {rate:g} is not in (0, 1]")
    return rate


def _malformed(what: str) -> PlanError:
    return PlanError(
        "GLD-P003",
        f"a privacy event cannot be accounted: {what}.",
        fix="Events are documented in docs/ledger.md; compare versions of Guilder.",
    )
