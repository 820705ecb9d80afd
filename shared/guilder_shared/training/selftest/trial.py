"""One observed turn: the product's `fit` on made-up rows, seen from inside.

The study is the real one with another schedule; model, recipe, encoder, draws, engine,
noise and divisor are the product's own and are called, not copied. This module judges
nothing.

Review, mathematics: nothing here is private.
Review, crash order: in memory only; no ledger, no charge, nothing is sent.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from guilder_shared.messages import Plan, Weights
from guilder_shared.models import registry
from guilder_shared.privacy import witness
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.privacy.witness import Seen
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.fit import fit

MakeKeys = Callable[[], TurnKeys]


@dataclass(frozen=True)
class Setting:
    """What a self-test tests.

    Attributes:
        study: As it was offered.
        plan: As it was confirmed.
        public_size: Of this site.
        make_keys: A turn's keys, fresh at each call.
    """

    study: Study
    plan: Plan
    public_size: int
    make_keys: MakeKeys = TurnKeys.from_os

    @property
    def expected(self) -> float:
        """The public divisor: units of a usual batch."""
        return self.study.training.sample_rate * self.public_size

    @property
    def clip_norm(self) -> float:
        """Most that one unit adds to a sum: of a site, the mean of its rows counts."""
        privacy = self.study.privacy
        own_mean = self.public_size if privacy.unit == "site" else 1
        return privacy.clip_norm * own_mean

    @property
    def std(self) -> float:
        """The noise that is charged, on a step's sum; beside a count it is larger."""
        assert self.plan.noise_multiplier is not None
        moving = self.study.training.adaptive_clip
        share = 0.0 if moving is None else moving.share
        return self.plan.noise_multiplier * self.clip_norm / math.sqrt(1 - share)

    def with_schedule(self, **training: Any) -> "Setting":
        """The same with other keys of [training]."""
        changed = self.study.training.model_copy(update=training)
        return replace(self, study=self.study.model_copy(update={"training": changed}))

    def with_a_fixed_clip_norm(self) -> "Setting":
        """The same where a clip norm that moves stays where it starts."""
        moving = self.study.training.adaptive_clip
        if moving is None:
            return self
        still = moving.model_copy(update={"rate": 1e-300})  # exp of it is 1
        return self.with_schedule(adaptive_clip=still)

    def with_everybody_drawn(self) -> "Setting":
        """The same with full batches, of about the same public size of a batch."""
        size = max(1, round(self.expected))
        full = self.with_schedule(sample_rate=1.0, local_steps=1)
        return replace(full, public_size=size)

    def with_clip_norm(self, clip_norm: float) -> "Setting":
        """The same with another clip norm."""
        changed = self.study.privacy.model_copy(update={"clip_norm": clip_norm})
        return replace(self, study=self.study.model_copy(update={"privacy": changed}))


def observe(
    setting: Setting,
    examples: Examples,
    weights: Weights,
    keys: TurnKeys | None = None,
) -> tuple[list[Seen], Weights]:
    """Take a turn on made-up examples; returns its steps from inside, and its result.

    Raises:
        PlanError: As `fit`.
    """
    with witness.watching() as steps:
        result = fit(
            weights,
            setting.study,
            setting.plan,
            examples,
            public_size=setting.public_size,
            keys=keys or setting.make_keys(),
        )
    return steps, result


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed every global generator for a while: nothing may depend on them."""
    import torch

    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.random.set_rng_state(before[2])


def cancelling(weights: Mapping[str, Any]) -> Weights:
    """Weights as a hostile server sends them: only rounding is left of them.

    Every layer's outputs are equal and the last layer adds them with weights that sum
    to zero, times 2**40. What a row then contributes hangs on its last bits: it must
    hang on its own.
    """
    rng = np.random.Generator(np.random.PCG64(5))
    changed = {name: array.copy() for name, array in weights.items()}
    matrices = [name for name, array in changed.items() if array.ndim > 1]
    for name, array in changed.items():
        if name in matrices[:-1]:
            one = rng.standard_normal(array.shape[1:])
            array[:] = 0.3 * one / np.sqrt(one.size)
        elif name.endswith("bias"):
            array[:] = 3.0  # every unit passes a ReLU
    if matrices:
        last = np.rint(rng.standard_normal(changed[matrices[-1]].shape) * 2**20)
        last[:, -1] = -last[:, :-1].sum(axis=1)  # exact: whole numbers
        changed[matrices[-1]][:] = last * 2.0**20
        bias = matrices[-1].removesuffix("weight") + "bias"
        if bias in changed:
            changed[bias][:] = 0.0
    return changed


def exploding(weights: Mapping[str, Any]) -> Weights:
    """Weights so large that gradients are not finite."""
    return {
        name: np.where(array < 0, -1e30, 1e30).astype(np.float32)
        for name, array in weights.items()
    }


def start(study: Study) -> Weights:
    """The study's own starting weights, moved a little so that no layer is zero."""
    rng = np.random.Generator(np.random.PCG64(3))
    return {
        name: (array + 0.05 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in registry.initial(study).items()
    }
