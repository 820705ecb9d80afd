"""What a charged mechanism costs at each Rényi order, from its event alone.

An event of a kind that is not known here is no fault: its cost is then the signed one,
and the answer says that it was not computed anew.
"""

from __future__ import annotations

import math
from typing import Any

from guilder_verifier import renyi

Cost = dict[int, float]  # nats, by order
PLAIN = ("none-protected", "gaussian", "poisson-sampled", "self-composed")
DEEPEST = 4
NEAR = 1e-5  # between two machines' arithmetic on the same event
MOST = 1e6  # charged where the divergence is larger: above any capacity


class UnknownEventError(Exception):
    """An event of a kind that this verifier cannot compute."""


def is_protected(event: Any) -> bool:
    """False where any part is a release without noise.

    Raises:
        ValueError: It is no event at all.
    """
    for _ in range(DEEPEST + 1):
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise ValueError("no event")
        if event["event"] != "self-composed":
            return bool(event["event"] != "none-protected")
        event = event.get("of")
    raise ValueError("an event nested too deeply")


def cost(event: Any) -> Cost:
    """Rényi divergence of one turn at each of `renyi.ORDERS`.

    Raises:
        UnknownEventError: Its kind is not one of the Gaussian's.
        ValueError: Its numbers cannot be.
    """
    kind = event["event"]
    if kind == "self-composed":
        times = whole(event["count"])
        return {order: times * part for order, part in cost(event["of"]).items()}
    rate, step = 1.0, event
    if kind == "poisson-sampled":
        rate, step = float(event["sampling_probability"]), event["of"]
    if step["event"] != "gaussian":
        raise UnknownEventError
    noise = float(step["noise_multiplier"])
    if not 0.05 <= noise < MOST or not 0 < rate <= 1:
        raise ValueError("a mechanism that is not accounted")
    return {order: renyi.gaussian(order, noise, rate) for order in renyi.ORDERS}


def is_charged_enough(event: Any, charged: Cost) -> bool | None:
    """Whether a turn was charged what its event costs; None: not computed here."""
    try:
        true = cost(event)
    except UnknownEventError:
        return None
    least = {order: min(part, MOST) * (1 - NEAR) for order, part in true.items()}
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
