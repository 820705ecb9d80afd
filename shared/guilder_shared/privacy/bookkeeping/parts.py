"""What one use of one layer adds to every unit's gradient, and the rules to tell it.

A `Part` holds what a layer saw and what came back. It answers three questions: the
norms, the weighted sum, and, where a parameter is used more than once, the per-unit
gradients themselves. This module knows no particular layer.

Review, mathematics: a part's per-unit gradient is linear in the factors; parts of
distinct parameters are orthogonal, so their square norms add up. Isolated units: what
one unit adds is made of its own rows' float32 numbers; only float64 sums run across
rows, so that the rows beside it move it by 2**-53 of what they are, never by a bit of
float32 that hostile weights could make decide everything.
Review, crash order: in memory only.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from guilder_shared.errors import PlanError
from guilder_shared.privacy.bookkeeping.norms import (
    Product,
    as_laid_out,
    square_norms,
)
from guilder_shared.privacy.bookkeeping.sums import Into

SUM_UNITS = 256  # rows added in float32 at once; sums of those are added in float64
_BLOCK_NUMBERS = 1 << 17  # float64 numbers added at once: 1 MiB, stays in the cache


@dataclass(frozen=True)
class Units:
    """Which unit each row belongs to.

    Attributes:
        num: Units in this pass.
        of_row: Unit of each row, shape (rows,), rising; None where row i is unit i.
        isolated: Whether only float64 sums may run across rows.
    """

    num: int
    of_row: Tensor | None = None
    isolated: bool = False

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.num if self.of_row is None else len(self.of_row)

    def and_rows(self, more: int) -> "Units":
        """The same, and so many rows behind that are units of their own."""
        if not more:
            return self
        if self.of_row is None:
            return replace(self, num=self.num + more)
        own = torch.arange(self.num, self.num + more, device=self.of_row.device)
        return replace(self, num=self.num + more, of_row=torch.cat([self.of_row, own]))

    def on(self, device: torch.device) -> "Units":
        """The same, on a device."""
        if self.of_row is None:
            return self
        return replace(self, of_row=self.of_row.to(device))

    def sum(self, rows: Tensor) -> Tensor:
        """Rows of one unit added up, in their order: (rows, ...) to (units, ...).

        In float64 where units are isolated.
        """
        if self.of_row is None:
            return rows
        rows = rows.double() if self.isolated else rows
        total = rows.new_zeros(self.num, *rows.shape[1:])
        return total.index_add_(0, self.of_row, rows)

    def spread(self, values: Tensor) -> Tensor:
        """One value of each unit, repeated for its rows."""
        return values if self.of_row is None else values[self.of_row]


class Part:
    """One use of a layer: the general rule, by per-unit gradients.

    Args:
        layer: The layer.
        names: The parameters whose gradients are asked for, by the layer's own names.
        inputs: The first positional input, detached; rows first.
        grads: Gradient of the summed loss in the layer's output; rows first.
        units: Which rows are one unit.
        strategy: How to compute it; one of `strategies`.
        fresh: What `early` gave.
    """

    own_children: ClassVar[bool] = False  # the rule covers parameters of children too

    def __init__(
        self,
        layer: Any,
        names: frozenset[str],
        inputs: Tensor,
        grads: Tensor,
        units: Units,
        strategy: str | None = None,
        *,
        fresh: Tensor | None = None,
    ) -> None:
        self.fresh = fresh
        self.layer, self.names, self.units = layer, names, units
        self.inputs, self.grads = inputs, grads
        self.strategy = strategy or self.choose()
        self.kept: dict[str, Tensor] = {}

    @classmethod
    def check(cls, layer: Any) -> None:
        """Refuse a layer whose options this rule does not cover."""

    @classmethod
    def take(cls, layer: Any, args: Any, kwargs: Any) -> Any:
        """What the rule needs of a call's arguments, detached."""
        inputs = _only_tensor(layer, args, kwargs)
        return inputs.detach()

    @classmethod
    def rows(cls, layer: Any, args: Any, kwargs: Any) -> int:
        """How many rows a call has; their dimension must be the first."""
        inputs = _only_tensor(layer, args, kwargs)
        return inputs.shape[0] if inputs.dim() else 0

    @classmethod
    def version(cls, inputs: Any) -> int:
        """Moves when `inputs` is changed in place."""
        return int(inputs._version)

    @classmethod
    def early(cls, layer: Any, inputs: Any, units: Units) -> Tensor | None:
        """What is better computed of the inputs now, while the cache holds them."""
        return None

    def strategies(self) -> tuple[str, ...]:
        """All exact ways to compute this part, given its shapes."""
        return ("instantiate",)

    def choose(self) -> str:
        """The way that should be cheapest, from the shapes alone."""
        return self.strategies()[0]

    def instantiate(self, names: frozenset[str]) -> dict[str, Tensor]:
        """Per-unit gradients of the named parameters, each (units, *shape)."""
        raise NotImplementedError

    def square_norms(self) -> Tensor:
        """Square norm of every unit's gradient in `names`: (units,), float64."""
        self.kept = self.instantiate(self.names)
        self.drop()
        return total(self.kept.values())

    def product(self) -> Product | None:
        """The gradients as outer products, if they are: their norms come at the end.

        A part that gives one keeps its inputs and gradients until it is added.
        """
        return None

    def drop(self) -> None:
        """Forget inputs and gradients: what is kept suffices."""
        del self.inputs, self.grads

    def forget(self, finite: Tensor) -> None:
        """Replace all numbers of the units that are not finite by zero."""
        for name, kept in self.kept.items():
            self.kept[name] = keep_rows(kept, finite)
        if hasattr(self, "grads"):
            rows = self.units.spread(finite)
            self.grads = keep_rows(self.grads, rows)
            if self.inputs.is_floating_point():
                self.inputs = keep_rows(self.inputs, rows)

    def weighted_sum(self, factors: Tensor, into: Mapping[str, Into]) -> None:
        """Add sum over units of factor x gradient to `into`, by name."""
        for name, kept in self.kept.items():
            add_weighted(factors, kept, into[name], isolated=self.units.isolated)

    def entering(self) -> list[Tensor]:
        """What the weighted sum is made of, rows or units first: for a trial."""
        left = [self.inputs, self.grads] if hasattr(self, "grads") else []
        return [*self.kept.values(), *left]


def _only_tensor(layer: Any, args: Any, kwargs: Any) -> Tensor:
    given = [*args, *kwargs.values()]
    if len(given) != 1 or not isinstance(given[0], Tensor):
        raise PlanError(
            "GLD-P054",
            f"layer {type(layer).__name__} is called with more than one tensor.",
            why="Its per-unit gradients cannot be computed exactly.",
            fix="Use another layer, or freeze it.",
        )
    return given[0]


def add_weighted(
    factors: Tensor, grads: Tensor, into: Into, *, isolated: bool = False
) -> None:
    """Add sum_i factors_i grads_i: few units at a time in their dtype.

    Args:
        factors: Shape (units,), float64.
        grads: Shape (units, *shape), each unit's numbers in any order of dimensions.
        into: Where to, of the shape (*shape).
        isolated: Add in float64 throughout.
    """
    if grads.dim() == 2:
        order, direct, flat = [1], True, grads
    else:
        order = as_laid_out(grads)
        direct = order == sorted(order)
        flat = grads.permute(0, *order).reshape(len(grads), -1)
    if isolated:
        wide = (
            into.numbers().view(-1)
            if direct
            else flat.new_zeros(flat.shape[1], dtype=torch.float64)
        )
        _add_wide(factors, flat, wide)
        if not direct:
            into.add(_put_back(wide, grads, order))
        return
    for some, by_unit in few_at_once(flat, factors.to(grads.dtype)):
        if direct:
            into.add_product(some.mT, by_unit)
        else:
            into.add(_put_back(torch.mv(some.mT, by_unit), grads, order))


def _put_back(flat: Tensor, grads: Tensor, order: list[int]) -> Tensor:
    """One unit's numbers as they are laid out, in the order of dimensions."""
    whole = flat.view([grads.shape[d] for d in order])
    return whole.permute([order.index(d) for d in range(1, grads.dim())])


def few_at_once(*by_unit: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Tensors of as many units each, in pieces that may be added in float32."""
    if by_unit[0].shape[0] <= SUM_UNITS:
        return (by_unit,)
    return zip(*(torch.split(x, SUM_UNITS) for x in by_unit), strict=True)


def _add_wide(factors: Tensor, flat: Tensor, into: Tensor) -> None:
    numbers = flat.shape[1]
    wide = min(numbers, _BLOCK_NUMBERS)
    high = max(1, _BLOCK_NUMBERS // max(1, wide))
    for left in range(0, numbers, max(1, wide)):
        columns = slice(left, left + wide)
        for top in range(0, len(flat), high):
            rows = slice(top, top + high)
            into[columns].addmv_(flat[rows, columns].double().mT, factors[rows])


def keep_rows(x: Tensor, finite: Tensor) -> Tensor:
    """`x` with the rows that are not finite set to zero: 0 x NaN would be NaN."""
    return torch.where(finite.view(-1, *[1] * (x.dim() - 1)), x, torch.zeros_like(x))


def total(grads: Any) -> Tensor:
    """Square norm over several tensors of per-unit gradients, (units,)."""
    parts = [square_norms(grad) for grad in grads]
    return torch.stack(parts).sum(0)


_rules: dict[type[nn.Module], type[Part]] = {}
_Kind = TypeVar("_Kind", bound=type[Part])


def rule_for(*kinds: type[nn.Module]) -> Callable[[_Kind], _Kind]:
    """Decorator: the class below is the rule for layers of exactly these kinds."""

    def register(rule: _Kind) -> _Kind:
        _rules.update(dict.fromkeys(kinds, rule))
        return rule

    return register


def find(layer: nn.Module) -> type[Part] | None:
    """The rule for this layer, or None.

    Exactly its kind: a subclass may compute something else.
    """
    return _rules.get(type(layer))
