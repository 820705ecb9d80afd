"""The strategy that a study names: how updates become one, and what is learnt of it.

    begin: an empty round   fold: one update   close: the next model, and what is kept

The same in simulation and deployment, and the same bytes after a restart: what is kept
between rounds is durable with the round. This module asks nobody.
"""

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from guilder_server import aggregate, controls, learners, norms, robust
from guilder_server.cohort import Member
from guilder_server.controls import CONTROL, Since
from guilder_server.learners import Gathered, Learner
from guilder_shared.messages import Plan, Weights
from guilder_shared.study import Study

Shapes = Mapping[str, tuple[int, ...]]


class Round(Gathered, Protocol):
    """The updates of one round, as they come in."""

    def add(self, update: Weights, member: Member) -> None:
        """Take one site's checked update."""

    def clear(self) -> None:
        """Free what it holds in memory and on disk."""


@dataclass
class Mean:
    """A mean by weights; each update may be shortened first."""

    total: aggregate.Total
    weights: Mapping[str, int]
    most: Callable[[Member], float] | None = None

    def add(self, update: Weights, member: Member) -> None:
        """Fold and forget."""
        scale = 1.0 if self.most is None else norms.scale(update, self.most(member))
        weight = self.weights[member.site]
        aggregate.fold(self.total, update, weight=weight, scale=scale)

    def centre(self, name: str, block: slice) -> aggregate.Numbers:
        """The mean so far."""
        return self.total.centre(name, block)

    def clear(self) -> None:
        """Forget the sum."""
        self.total = aggregate.Total()


@dataclass
class Sorted:
    """A rule over all values of a coordinate; weights play no part."""

    spill: robust.Spill
    num: int = 0

    def add(self, update: Weights, member: Member) -> None:
        """Write to disk and forget."""
        self.num += 1
        self.spill.fold(update)

    def centre(self, name: str, block: slice) -> aggregate.Numbers:
        """What the rule makes of the values so far."""
        return self.spill.centre(name, block)

    def clear(self) -> None:
        """Remove the scratch file."""
        self.spill.clear()


@dataclass(frozen=True)
class Whole:
    """A round's members by weight, and the weight of those that answered."""

    weights: Mapping[str, int]
    answered: int

    @classmethod
    def of(
        cls,
        weights: Mapping[str, int],
        members: Container[str],
        answered: Container[str],
    ) -> "Whole":
        """From a round's weights: who is a member still, and who answered."""
        return cls(
            {site: weight for site, weight in weights.items() if site in members},
            sum(weight for site, weight in weights.items() if site in answered),
        )


@dataclass(frozen=True)
class Kept:
    """What a strategy remembers between rounds; durable with the round's model.

    Attributes:
        state: Arrays beside the model; empty for most strategies.
        since: Whose control variates count, where there are any.
    """

    state: Weights
    since: Since | None = None

    @property
    def control(self) -> Weights | None:
        """The control variate under the model's own names, where there is one."""
        if self.since is None:
            return None
        return {n.removeprefix(f"{CONTROL}/"): w for n, w in self.state.items()}

    @property
    def facts(self) -> dict[str, Any] | None:
        """`since` as JSON."""
        return None if self.since is None else asdict(self.since)


@dataclass(frozen=True)
class Strategy:
    """What one study does with updates.

    Args:
        study: Names the strategy and its keys.
        plan: The noise, for the rule that allows for it.
        scratch: A file for what does not fit into memory.
    """

    study: Study
    plan: Plan
    scratch: Path

    def begin(self, shapes: Shapes, weights: Mapping[str, int]) -> Round:
        """A round without updates; `weights` as `aggregate.weigh` gives them."""
        asked = self.study.aggregation
        if asked.strategy == "median":
            return Sorted(robust.Spill(self.scratch, shapes, robust.median))
        if asked.strategy == "trimmed-mean":
            return Sorted(robust.Spill(self.scratch, shapes, self._trimmed))
        num_numbers = sum(math.prod(shape) for shape in shapes.values())
        most = partial(self._longest, num_numbers)
        bounded = asked.strategy == "norm-bound"
        return Mean(aggregate.empty(shapes), weights, most if bounded else None)

    def kept(self, shapes: Shapes, state: Weights | None, facts: Any) -> Kept:
        """What a run kept after its last round, or has before its first."""
        found = self._learner(1.0).start(shapes) if state is None else state
        return Kept(found, Since.of(facts) if self._has_controls else None)

    def state_shapes(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what is kept; none for most strategies."""
        return self._learner(1.0).shapes(shapes)

    def close(
        self, round_no: int, model: Weights, updates: Round, kept: Kept, now: Whole
    ) -> tuple[Weights, Kept]:
        """The next model, and what is kept with it; frees the round's scratch.

        Raises:
            RunFailed: GLD-R040 the model is no longer finite.
        """
        since, share = kept.since, 1.0
        if since is not None:
            since = since.after(round_no, now.weights)
            anew = since.round_no > round_no
            share = 0.0 if anew else now.answered / sum(now.weights.values())
        model, state = self._learner(share).learn(model, updates, kept.state)
        updates.clear()
        return model, Kept(state, since)

    @property
    def _has_controls(self) -> bool:
        return self.study.aggregation.has_controls

    def _learner(self, share: float) -> Learner:
        asked = self.study.aggregation
        if self._has_controls:
            return controls.learner(self.study, share)
        if asked.strategy == "fedadam":
            assert asked.server_learning_rate is not None
            first, second = asked.server_betas or learners.BETAS
            floor = asked.server_floor or learners.FLOOR
            return learners.adam(asked.server_learning_rate, (first, second), floor)
        return Learner(learners.add, {})

    def _trimmed(self, values: robust.Values) -> aggregate.Numbers:
        num_trimmed = self.study.aggregation.num_trimmed(len(values))
        return robust.trimmed_mean(values, num_trimmed)

    def _longest(self, num_numbers: int, member: Member) -> float:
        return norms.longest(
            self.study,
            self.plan,
            public_size=member.public_size,
            num_numbers=num_numbers,
        )
