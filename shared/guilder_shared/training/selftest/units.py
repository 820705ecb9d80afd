"""What one unit moves: removed at the source, in the production dtype, at any weights.

Every unit of a small batch is taken out of the made-up source; what is left is encoded
and trained again, and the clipped sums are compared. This module changes nothing.

Review, mathematics. The promise: a sum moves by at most C (1 + s) when a unit comes or
goes. A sharper fact holds for an engine whose rows stand alone, and tells a row that
mixes long before it matters: what a unit moves among others is what it adds alone.
That clipping works is checked where it must: at a clip norm below what the units' own
gradients are. No chance here: no false alarms.
Review, crash order: in memory only.
"""

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from guilder_shared.messages import Weights
from guilder_shared.tasks import Examples
from guilder_shared.training.selftest import source, trial
from guilder_shared.training.selftest.trial import Setting

if TYPE_CHECKING:
    import pyarrow as pa

Numbers = NDArray[np.float64]

UNITS = 8
ROWS_OF_A_PERSON = 3
LOOSE = 1e-6  # of C: sums are float64 over float32 numbers


def check(setting: Setting, weights: Weights, *, until: float) -> list[str]:
    """What is wrong with clipping and preparation; nothing, if all is well.

    Args:
        setting: The real study.
        weights: To start from.
        until: On the monotonic clock: when to stop removing further units. One is
            removed at all weights, however long a pass takes.
    """
    whole = setting.with_everybody_drawn().with_schedule(augment=None)
    batch = _Batch(whole)
    found = batch.source_mixes()
    for name, some in (
        ("the study's weights", weights),
        ("hostile weights", trial.cancelling(weights)),
    ):
        wrong, norms = batch.removed(whole, some, name, until=until)
        found += wrong
        if name == "the study's weights":
            smallest = min((n for n in norms if n > 0), default=0.0)
            if smallest and max(norms) < 0.9 * whole.clip_norm:
                tight = whole.with_clip_norm(_tight(whole, smallest))
                found += batch.removed(tight, some, "a tight clip norm", until=until)[0]
    found += batch.not_finite(whole, weights, until=until)
    return found + batch.exploding(whole, weights)


class _Batch:
    """A few units as a source, and what a step makes of them."""

    def __init__(self, setting: Setting) -> None:
        study = setting.study
        self.rows_each = ROWS_OF_A_PERSON if study.privacy.unit == "person" else 1
        if study.privacy.max_records is not None:  # above it the choice is random
            self.rows_each = min(self.rows_each, study.privacy.max_records)
        self.is_site = study.privacy.unit == "site"
        self.study = study
        self.table = source.table(study, UNITS, rows_each=self.rows_each)
        self.whole = source.examples(study, self.table)
        self.units = 1 if self.is_site else UNITS

    def without(self, unit: int) -> Examples:
        """Encoded anew from a source that never held the unit."""
        if self.is_site:
            return source.examples(self.study, self.table.slice(0, 0))
        left = source.without(self.table, unit, rows_each=self.rows_each)
        return source.examples(self.study, left)

    def alone(self, unit: int) -> Examples:
        """Encoded anew from a source that holds this unit only."""
        table: pa.Table = self.table
        if not self.is_site:
            table = source.alone(table, unit, rows_each=self.rows_each)
        return source.examples(self.study, table)

    def source_mixes(self) -> list[str]:
        """Whether preparing a row looks at another."""
        if self.is_site:
            return []
        for unit in range(self.units):
            first = unit * self.rows_each
            rows = slice(first, first + self.rows_each)
            left, own = self.without(unit), self.alone(unit)
            for name in ("inputs", "targets"):
                every = getattr(self.whole, name)
                if not (
                    _same(np.delete(every, rows, axis=0), getattr(left, name))
                    and _same(every[rows], getattr(own, name))
                ):
                    return [
                        "preparing one row looks at another: they are encoded "
                        "differently with and without it"
                    ]
        return []

    def removed(
        self, setting: Setting, weights: Weights, where: str, *, until: float
    ) -> tuple[list[str], list[float]]:
        """Take out each unit; returns what is wrong, and what each adds alone."""
        limit = setting.clip_norm
        bound = limit * (1 + setting.plan.sensitivity_slack)
        every = _sum(setting, self.whole, weights)
        norms: list[float] = []
        for unit in range(self.units):
            if unit and time.monotonic() > until:
                break
            moved = every - _sum(setting, self.without(unit), weights)
            own = _sum(setting, self.alone(unit), weights)
            norms.append(float(np.linalg.norm(own)))
            size = float(np.linalg.norm(moved))
            if not size <= bound:
                return [
                    f"at {where} one unit moves the sum by {size / limit:.4f} clip "
                    f"norms; {bound / limit:.4f} are charged"
                ], norms
            if not float(np.linalg.norm(moved - own)) <= LOOSE * limit:
                return [f"at {where} what one unit adds hangs on the others"], norms
        return [], norms

    def not_finite(
        self, setting: Setting, weights: Weights, *, until: float
    ) -> list[str]:
        """Rows with NaN or infinity count exactly zero."""
        inputs: Any = self.whole.inputs
        if not np.issubdtype(inputs.dtype, np.floating) or self.is_site:
            return []
        clean = _sum(setting, self.without(0), weights)
        for bad in (np.nan, np.inf):
            if bad == np.inf and time.monotonic() > until:
                break
            spoilt = inputs.copy()
            spoilt[: self.rows_each] = bad
            total = _sum(setting, replace(self.whole, inputs=spoilt), weights)
            limit = LOOSE * setting.clip_norm
            if not float(np.linalg.norm(total - clean)) <= limit:
                return ["a unit whose gradient is not finite does not count zero"]
        return []

    def exploding(self, setting: Setting, weights: Weights) -> list[str]:
        """Weights that make gradients overflow still give a sum within bounds."""
        total = _sum(setting, self.whole, trial.exploding(weights))
        bound = self.units * setting.clip_norm * 1.001
        if not float(np.linalg.norm(total)) <= bound:
            return ["weights that overflow make a sum that is not bounded"]
        return []


def _sum(setting: Setting, examples: Examples, weights: Weights) -> Numbers:
    """The clipped sum of one full batch, before noise."""
    seen, _ = trial.observe(setting, examples, weights)
    if len(seen) != 1:
        return np.full(1, np.nan)
    return seen[0].total


def _tight(setting: Setting, smallest: float) -> float:
    """A clip norm for [privacy] that is half of the smallest unit's gradient."""
    return smallest / 2 * setting.study.privacy.clip_norm / setting.clip_norm


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and np.array_equal(
        one, other, equal_nan=one.dtype.kind == "f"
    )
