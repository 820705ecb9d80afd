"""What a charged mechanism costs at each Rényi order, from its event alone.

An event of a kind that is not documented is refused: nobody could say what it costs.
"""

from __future__ import annotations

import math
from typing import Any

from guilder_verifier import renyi

Cost = dict[int, float]  # nats, by order
Steps = tuple[float, float, int, str]  # noise multiplier, sample rate, how many, kind
UNSAMPLED = ("gaussian", "laplace", "discrete-gaussian")
LEAST_NOISE = 0.05
MOST_STEPS = 10_000_000
MOST_PARTS = 16
DEEPEST = 4
MOST_CASES = 16
NEAR = 1e-5  # between two machines' arithmetic on the same event
MOST = 1e6  # charged where the divergence is larger: above any capacity


def is_protected(event: Any) -> bool:
    """False where any part is a release without noise.

    Raises:
        ValueError: It is no event at all.
    """
    return _is_protected(event, DEEPEST)


def _is_protected(event: Any, depth: int) -> bool:
    if depth == 0 or not isinstance(event, dict):
        raise ValueError("no event, or one nested too deeply")
    if not isinstance(event.get("event"), str):
        raise ValueError("no event")
    if event["event"] == "self-composed":
        return _is_protected(event.get("of"), depth - 1)
    if event["event"] == "parallel":
        parts = event["of"]
        if not isinstance(parts, list) or not 2 <= len(parts) <= MOST_CASES:
            raise ValueError("no parts")
        return all(_is_protected(part, depth - 1) for part in parts)
    return bool(event["event"] != "none-protected")


def cost(event: Any) -> Cost:
    """Rényi divergence of one turn at each of `renyi.ORDERS`.

    Raises:
        ValueError: It is no event, or its numbers cannot be.
    """
    told = dict.fromkeys(renyi.ORDERS, 0.0)
    for steps in cases(event):
        for order in renyi.ORDERS:
            parts = (n * renyi.divergence(order, z, q, kind) for z, q, n, kind in steps)
            told[order] = max(told[order], sum(parts))
    return told


def cases(event: Any, count: int = 1) -> list[list[Steps]]:
    """What one unit may meet: of each case its steps; none of what is unprotected.

    Raises:
        ValueError: It is no event of a documented kind, or its numbers cannot be.
    """
    kind = event["event"]
    if kind == "none-protected":
        demand_members(event, set())
        return []
    if kind == "self-composed":
        demand_members(event, {"count", "of"})
        return cases(event["of"], count * whole(event["count"]))
    if kind == "parallel":
        demand_members(event, {"of"})
        if not 2 <= len(event["of"]) <= MOST_PARTS:
            raise ValueError("too few parts, or too many")
        return [case for part in event["of"] for case in cases(part, count)]
    rate, step = 1.0, event
    if kind == "poisson-sampled":
        demand_members(event, {"sampling_probability", "of"})
        rate, step = number(event["sampling_probability"], 1.1), event["of"]
    known = UNSAMPLED if step is event else ("gaussian",)
    demand_members(step, {"noise_multiplier"})
    noise = number(step["noise_multiplier"], MOST)
    if step["event"] not in known or noise < LEAST_NOISE:
        raise ValueError("a mechanism that is not accounted")
    if rate > 1 or count > MOST_STEPS:
        raise ValueError("a mechanism that is not accounted")
    return [[(noise, rate, count, step["event"])]]


def demand_members(event: dict[str, Any], members: set[str]) -> None:
    """Raise unless an event has these members and its kind, and no other."""
    if event.keys() != members | {"event"}:
        raise ValueError("an event with a member too many or too few")


def is_charged_enough(event: Any, charged: Cost) -> bool:
    """Whether a turn was charged what its event costs."""
    least = {order: min(part, MOST) * (1 - NEAR) for order, part in cost(event).items()}
    return all(charged[order] >= part for order, part in least.items())


def whole(value: Any) -> int:
    """A whole number above 0.

    Raises:
        ValueError: It is something else.
    """
    if type(value) is not int or value < 1:
        raise ValueError("no whole number above 0")
    return value


def number(value: Any, most: float = math.inf) -> float:
    """A number above 0 and below `most`.

    Raises:
        ValueError: It is something else.
    """
    if type(value) not in (int, float) or not 0 < value < most:
        raise ValueError("no number that can be here")
    return float(value)
