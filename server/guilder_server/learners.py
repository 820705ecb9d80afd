"""What the global model does with the centre of the updates, and what it remembers.

Every rule works coordinate by coordinate, on float64 blocks, so a model of any size
needs little beside itself. What is remembered is rounded to float32 before it is used
again: a run that was resumed computes the same bytes as one that was not.

Review, mathematics: post-processing of private updates and of public constants; no
charge moves.
Review, crash order: pure; the caller makes state durable with the round's model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from guilder_server.aggregate import Numbers, blocks
from guilder_shared.errors import RunFailed
from guilder_shared.messages import Weights

BETAS: Final = (0.9, 0.99)
FLOOR: Final = 1e-3

Rule = Callable[..., tuple[Numbers, ...]]  # model, centre, state… -> model, state…


class Gathered(Protocol):
    """The updates of a round, as one."""

    def centre(self, name: str, block: slice) -> Numbers:
        """What stands for all updates of one parameter, flattened, in one block."""


@dataclass(frozen=True)
class Learner:
    """A rule, and the names and first values of the state it keeps between rounds."""

    rule: Rule
    state: Mapping[str, float]

    def shapes(
        self, model: Mapping[str, tuple[int, ...]]
    ) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the state beside a model of these shapes."""
        return {f"{kind}/{n}": s for kind in self.state for n, s in model.items()}

    def start(self, model: Mapping[str, tuple[int, ...]]) -> Weights:
        """The state before the first round."""
        return {
            f"{kind}/{name}": np.full(shape, first, np.float32)
            for kind, first in self.state.items()
            for name, shape in model.items()
        }

    def learn(
        self, model: Weights, gathered: Gathered, state: Weights
    ) -> tuple[Weights, Weights]:
        """The next model and state, float32.

        Raises:
            RunFailed: GLD-R040 the model is no longer finite.
        """
        out = {name: np.empty_like(w) for name, w in (model | state).items()}
        for name, weights in model.items():
            places = [name, *(f"{kind}/{name}" for kind in self.state)]
            old = [(model | state)[place].reshape(-1) for place in places]
            new = [out[place].reshape(-1) for place in places]
            for block in blocks(weights.size):
                numbers = [array[block].astype(np.float64) for array in old]
                centre = gathered.centre(name, block)
                made = self.rule(numbers[0], centre, *numbers[1:])
                with np.errstate(over="ignore"):  # found below, by name
                    for array, values in zip(new, made, strict=True):
                        array[block] = values.astype(np.float32)
        _demand_finite(out)
        return {n: out[n] for n in model}, {n: out[n] for n in state}


def _demand_finite(weights: Weights) -> None:
    for name, values in weights.items():
        flat = values.reshape(-1)
        if not all(np.isfinite(flat[block]).all() for block in blocks(flat.size)):
            raise RunFailed(
                "GLD-R040",
                f"the new model's {name!r} is not finite; it was not kept",
                why="Every update was in range: the server's step is too long.",
                fix="lower aggregation.server_learning_rate or training.learning_rate",
            )


def add(model: Numbers, centre: Numbers) -> tuple[Numbers, ...]:
    """The model moved by the centre of the updates: FedAvg."""
    return (model + centre,)


def adam(rate: float, betas: tuple[float, float], floor: float) -> Learner:
    """Adam at the server, over rounds.

    Args:
        rate: Learning rate of the server; positive.
        betas: Decay of the first and second moment, in [0, 1).
        floor: Added to the root of the second moment; also its first value's root.

    Source: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2, FedAdam.
    """
    first, second = betas

    def rule(
        model: Numbers, centre: Numbers, mean: Numbers, square: Numbers
    ) -> tuple[Numbers, ...]:
        mean = first * mean + (1 - first) * centre
        square = second * square + (1 - second) * centre**2
        return model + rate * mean / (np.sqrt(square) + floor), mean, square

    return Learner(rule, {"mean": 0.0, "square": floor**2})
