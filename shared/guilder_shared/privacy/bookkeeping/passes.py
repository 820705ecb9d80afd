"""One pass of the engine: a forward and a backward, and the clipped sum of its units.

What a layer saw and what came back becomes its part; all parts together give the
units' norms, and then the sum. This module knows no optimizer and no noise.

Review, mathematics: see `engine`.
Review, crash order: in memory only.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from guilder_shared.errors import PlanError
from guilder_shared.privacy.bookkeeping import validate
from guilder_shared.privacy.bookkeeping.fallback import refused
from guilder_shared.privacy.bookkeeping.norms import factors, square_norms
from guilder_shared.privacy.bookkeeping.parts import (
    Part,
    Units,
    add_weighted,
    keep_rows,
)
from guilder_shared.privacy.bookkeeping.sums import Sum

CLIP_MARGIN = 1 - 2.0**-10  # clip a little below C: rounding then stays below C (1 + s)


class _Entry(torch.autograd.Function):
    """Makes a tensor that needs no gradient the start of what autograd computes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _start: Tensor) -> Tensor:
        ctx.mark_dirty(x)  # not a view: the model may change it in place
        return x

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


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
        self.start = torch.zeros((), requires_grad=True)
        self.uses: Counter[int] = Counter()
        self.parts: list[tuple[dict[str, nn.Parameter], Part]] = []
        self.shared: dict[int, Tensor] = {}
        self.square = torch.zeros(
            units.num, dtype=torch.float64, device=engine.params[0].device
        )

    def forward(self, place: int, args: Any, kwargs: Any, output: Any) -> Any:
        """Note what a layer saw; be told what comes back."""
        if not torch.is_grad_enabled():
            return None
        name, layer, rule, owned = self.engine._layers[place]
        inputs = rule.take(layer, args, kwargs)
        validate.refuse_rows(name, layer, rule.rows(layer, args, kwargs), self.rows)
        for p in owned.values():
            self.uses[id(p)] += 1
        first = output[0] if isinstance(output, tuple) else output
        if not first.requires_grad:
            first = _Entry.apply(first, self.start)  # type: ignore[no-untyped-call]
        version = rule.version(inputs)

        def backward(grads: Tensor) -> None:
            if rule.version(inputs) != version:
                _refuse_changed_input(name, layer)
            with torch.no_grad(), self.engine.unwatched():
                dtype = next(iter(owned.values())).dtype
                seen, back = _in(inputs, dtype), _in(grads.detach(), dtype)
                self._note(rule, layer, owned, seen, back)

        first.register_hook(backward)
        if not isinstance(output, tuple):
            return first
        return (first, *(self._unused(layer, other) for other in output[1:]))

    def _unused(self, layer: nn.Module, other: Any) -> Any:
        """A further output, refused as soon as a loss depends on it."""
        if not isinstance(other, Tensor) or not other.is_floating_point():
            return other
        if not other.requires_grad:
            other = _Entry.apply(other, self.start)  # type: ignore[no-untyped-call]

        def backward(_grads: Tensor) -> None:
            raise refused(layer, "the loss depends on its second output")

        other.register_hook(backward)
        return other

    def _note(
        self,
        rule: type[Part],
        layer: nn.Module,
        owned: dict[str, nn.Parameter],
        inputs: Any,
        grads: Tensor,
    ) -> None:
        single = frozenset(n for n, p in owned.items() if self.uses[id(p)] == 1)
        several = frozenset(owned) - single
        if several:
            part = rule(layer, several, inputs, grads, self.units, "instantiate")
            for name, grad in part.instantiate(several).items():
                key = id(owned[name])
                seen = self.shared.get(key)
                self.shared[key] = grad if seen is None else seen + grad
        if single:
            part = rule(layer, single, inputs, grads, self.units)
            if self.engine._choose is not None and len(part.strategies()) > 1:
                part.strategy = self.engine._choose(part) or part.strategy
            self.square += part.square_norms()
            self.parts.append((owned, part))

    def add(self, total: Sum, limit: float) -> Tensor:
        """Add every unit, scaled to at most `limit`; returns how much of each counts.

        That is 1 for a unit within the limit, 0 for one that is not finite.
        """
        for grads in self.shared.values():
            self.square += square_norms(grads)
        dtype = self.engine.params[0].dtype
        counted, finite = factors(self.square, limit, dtype)
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
        parts = [x for _, part in self.parts for x in part.entering()]
        return [self.square, *self.shared.values(), *parts]


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
