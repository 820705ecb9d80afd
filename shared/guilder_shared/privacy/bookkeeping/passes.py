"""One pass of the engine: a forward and a backward, and the clipped sum of its units.

What a layer saw and what came back becomes its part; all parts together give the
units' norms, and then the sum. This module knows no optimizer and no noise.

Review, mathematics: see `engine`.
Review, crash order: in memory only.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from guilder_shared.errors import PlanError
from guilder_shared.privacy.bookkeeping import validate
from guilder_shared.privacy.bookkeeping.fallback import refused
from guilder_shared.privacy.bookkeeping.norms import (
    Product,
    factors,
    product_square_norms,
    square_norms,
    widen,
)
from guilder_shared.privacy.bookkeeping.parts import (
    Part,
    Units,
    add_weighted,
    keep_rows,
)
from guilder_shared.privacy.bookkeeping.sums import Sum

CLIP_MARGIN = 1 - 2.0**-10  # clip a little below C: rounding then stays below C (1 + s)


def _entry(x: Tensor) -> Tensor:
    """A tensor that needs no gradient as the start of what autograd computes.

    In the same memory, and no view: the model may change it in place.
    """
    start = x.detach().requires_grad_()
    entry: Tensor = torch.ops.aten._unsafe_view.default(start, x.shape)
    return entry


class Watcher(Protocol):
    """What a pass asks of its engine: layers, their rules, and where sums lie."""

    params: list[nn.Parameter]
    _layers: list[tuple[str, nn.Module, type[Part], dict[str, nn.Parameter]]]
    _choose: Callable[[Part], str | None] | None

    def unwatched(self) -> AbstractContextManager[None]:
        """While a rule runs its layer again."""


class Pass:
    """One forward and backward: what it recorded, and its clipped sum."""

    def __init__(self, engine: Watcher, units: Units) -> None:
        self.engine, self.units = engine, units
        self.rows = units.rows
        self.uses: dict[int, int] = {}
        self.parts: list[tuple[dict[str, nn.Parameter], Part]] = []
        self.shared: dict[int, Tensor] = {}
        self.squares: list[Tensor | Product] = []  # norms, in the order of the parts

    def forward(self, place: int, args: Any, kwargs: Any, output: Any) -> Any:
        """Note what a layer saw; be told what comes back."""
        if not torch.is_grad_enabled():
            return None
        name, layer, rule, owned = self.engine._layers[place]
        inputs = rule.take(layer, args, kwargs)
        validate.refuse_rows(name, layer, rule.rows(layer, args, kwargs), self.rows)
        for p in owned.values():
            self.uses[id(p)] = self.uses.get(id(p), 0) + 1
        first = output[0] if isinstance(output, tuple) else output
        if not first.requires_grad:
            first = _entry(first)
        version = rule.version(inputs)
        # Given once, then forgotten: autograd keeps its hooks until all is computed.
        seen = [(inputs, rule.early(layer, inputs, self.units))]
        del inputs

        def backward(grads: Tensor) -> None:
            if not seen:
                raise refused(layer, "its gradient comes back twice")
            inputs, fresh = seen.pop()
            if rule.version(inputs) != version:
                _refuse_changed_input(name, layer)
            self._note(place, inputs, grads, fresh)

        first.register_hook(backward)
        if not isinstance(output, tuple):
            return first
        return (first, *(self._unused(layer, other) for other in output[1:]))

    def _unused(self, layer: nn.Module, other: Any) -> Any:
        """A further output, refused as soon as a loss depends on it."""
        if not isinstance(other, Tensor) or not other.is_floating_point():
            return other
        if not other.requires_grad:
            other = _entry(other)

        def backward(_grads: Tensor) -> None:
            raise refused(layer, "the loss depends on its second output")

        other.register_hook(backward)
        return other

    def _note(
        self, place: int, inputs: Any, grads: Tensor, fresh: Tensor | None
    ) -> None:
        _, layer, rule, owned = self.engine._layers[place]
        dtype = next(iter(owned.values())).dtype
        inputs, grads = _in(inputs, dtype), _in(grads, dtype)
        single = frozenset(n for n, p in owned.items() if self.uses[id(p)] == 1)
        several = frozenset(owned) - single
        if several:
            with torch.no_grad(), self.engine.unwatched():
                part = rule(layer, several, inputs, grads, self.units, "instantiate")
                for name, grad in part.instantiate(several).items():
                    key = id(owned[name])
                    seen = self.shared.get(key)
                    self.shared[key] = grad if seen is None else seen + grad
        if single:
            part = rule(layer, single, inputs, grads, self.units, fresh=fresh)
            if self.engine._choose is not None and len(part.strategies()) > 1:
                part.strategy = self.engine._choose(part) or part.strategy
            self.parts.append((owned, part))
            self._add_norms(part)

    def _add_norms(self, part: Part) -> None:
        product = part.product()
        if product is not None:  # computed with all others
            self.squares.append(product)
            return
        with torch.no_grad(), self.engine.unwatched():
            self.squares.append(part.square_norms())

    def factors(self, limit: float) -> tuple[Tensor, Tensor | None]:
        """As `norms.factors`, of all that was noted."""
        products = self._products()
        with torch.no_grad():
            found = product_square_norms(products)
            dtype = self.engine.params[0].dtype
            counted, finite = factors(self._together(found), limit, dtype)
            if finite is not None and products:
                widen(found, products)
                counted, finite = factors(self._together(found), limit, dtype)
        return counted, finite

    def _products(self) -> list[Product]:
        return [x for x in self.squares if isinstance(x, Product)]

    def _together(self, found: Sequence[Tensor]) -> Tensor:
        """The units' square norms, one part after the other: (units,), float64.

        Never as one sum over parts, whose order may depend on a unit's place.
        """
        later = iter(found)
        each = [next(later) if isinstance(x, Product) else x for x in self.squares]
        each += [square_norms(grads) for grads in self.shared.values()]
        if not each:  # no loss depends on anything trained
            first = self.engine.params[0]
            return first.new_zeros(self.units.num, dtype=torch.float64)
        total, *others = each
        for square in others:
            total = total + square
        return total

    def add(self, total: Sum, limit: float) -> Tensor:
        """Add every unit, scaled to at most `limit`; returns how much of each counts.

        That is 1 for a unit within the limit, 0 for one that is not finite.
        """
        counted, finite = self.factors(limit)
        self.squares.clear()
        dtype = self.engine.params[0].dtype
        weights = counted if self.units.isolated else counted.to(dtype)
        with torch.no_grad(), self.engine.unwatched():
            while self.parts:  # each is forgotten when it has been added
                owned, part = self.parts.pop()
                if finite is not None:
                    part.forget(finite)
                part.weighted_sum(weights, {n: total.into(p) for n, p in owned.items()})
            for p in self.engine.params:
                if id(p) not in self.shared:
                    continue
                kept = self.shared[id(p)]
                kept = kept if finite is None else keep_rows(kept, finite)
                isolated = self.units.isolated
                add_weighted(weights, kept, total.into(p), isolated=isolated)
        return counted

    def entering(self) -> list[Tensor]:
        """What `add` would add, rows or units first."""
        products = self._products()
        found = product_square_norms(products)
        widen(found, products)
        parts = [x for _, part in self.parts for x in part.entering()]
        return [self._together(found), *self.shared.values(), *parts]


def _in(value: Any, dtype: torch.dtype) -> Any:
    """Numbers in the parameters' dtype, where the model computed in another."""
    if isinstance(value, dict):
        return {name: _in(x, dtype) for name, x in value.items()}
    if value.dtype == dtype or not value.is_floating_point():
        return value
    return value.to(dtype)


def _refuse_changed_input(name: str, layer: nn.Module) -> None:
    raise PlanError(
        "GLD-P053",
        f"the input of layer {name} ({type(layer).__name__}) is changed in place "
        "after the layer has seen it.",
        why="Its gradient would be that of other numbers.",
        fix="Write x = x + y instead of x += y, and inplace=False.",
    )
