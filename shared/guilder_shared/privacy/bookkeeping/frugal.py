"""Less memory for more arithmetic: activations are computed again, norms come first.

One pass becomes two: the first keeps nothing but the units' square norms, the second
adds each layer's part as soon as it is there. Blocks of the model are run again when
their gradients are due, so that only one block's activations are held at a time. This
module knows no study.

Review, mathematics: both passes compute what `passes` does, on the same inputs by the
same kernels; kernels that do not repeat themselves are refused in a turn. A factor of
the first pass then belongs to the very gradients of the second. Where somebody lets
kernels vary, a gradient may differ from the one whose norm was taken by their rounding:
the margin of the clip norm, 2**-10, covers it.
Review, crash order: in memory only.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from guilder_shared.errors import PlanError
from guilder_shared.privacy.bookkeeping.norms import product_square_norms, widen
from guilder_shared.privacy.bookkeeping.parts import (
    Part,
    Units,
    add_weighted,
    keep_rows,
)
from guilder_shared.privacy.bookkeeping.passes import Pass, Watcher
from guilder_shared.privacy.bookkeeping.sums import Sum

MOST_LAYERS = 12  # with parameters, in one block

Again = Callable[[], AbstractContextManager[Any]]


class NormsOnly(Pass):
    """A pass that keeps square norms and forgets how they were made."""

    def __init__(self, engine: Watcher, units: Units) -> None:
        super().__init__(engine, units)
        self.single: set[int] = set()  # parameters that were taken for used once

    def _note(
        self, place: int, inputs: Any, grads: Tensor, fresh: Tensor | None
    ) -> None:
        _, layer, _, owned = self.engine._layers[place]
        for p in owned.values():
            if id(p) in self.single:
                _refuse_second_use(layer)
            if self.uses[id(p)] == 1:
                self.single.add(id(p))
        super()._note(place, inputs, grads, fresh)
        self.parts.clear()

    def _add_norms(self, part: Part) -> None:
        product = part.product()
        if product is None:
            super()._add_norms(part)
            return
        with torch.no_grad():
            found = product_square_norms([product])
            widen(found, [product])
        self.squares += found


class SumsOnly(Pass):
    """A pass whose factors are known: each part is added and forgotten.

    Args:
        engine: The engine.
        units: Which rows are one unit.
        total: The sum in the making; it is changed.
        counted: How much of each unit counts, (units,) float64.
        finite: Which units are, (units,); None if all are.
    """

    def __init__(
        self,
        engine: Watcher,
        units: Units,
        *,
        total: Sum,
        counted: Tensor,
        finite: Tensor | None,
    ) -> None:
        super().__init__(engine, units)
        self.total, self.finite = total, finite
        dtype = torch.float64 if units.isolated else engine.params[0].dtype
        self.weights = counted.to(dtype)

    def _note(
        self, place: int, inputs: Any, grads: Tensor, fresh: Tensor | None
    ) -> None:
        super()._note(place, inputs, grads, fresh)
        self.squares.clear()
        with torch.no_grad(), self.engine.unwatched():
            while self.parts:
                of_part, part = self.parts.pop()
                if self.finite is not None:
                    part.forget(self.finite)
                into = {n: self.total.into(p) for n, p in of_part.items()}
                part.weighted_sum(self.weights, into)

    def finish(self) -> None:
        """Add what is used several times."""
        for p in self.engine.params:
            grads = self.shared.pop(id(p), None)
            if grads is None:
                continue
            kept = grads if self.finite is None else keep_rows(grads, self.finite)
            isolated = self.units.isolated
            add_weighted(self.weights, kept, self.total.into(p), isolated=isolated)


def run_again(model: nn.Module, trained: set[int], context: Again) -> list[nn.Module]:
    """Let blocks of a model compute their activations again in the backward pass.

    Args:
        model: It is changed until `as_before`. Where it is one block, or a parameter
            has several places, it stays as it is.
        trained: Ids of the trained layers.
        context: In which a block runs again: the model's own dtype.

    Returns:
        The blocks.
    """
    places = Counter(id(p) for m in model.modules() for p in m.parameters(False))
    blocks = list(_blocks(model, trained))
    if len(blocks) < 2 or max(places.values(), default=0) > 1:
        return []
    for block in blocks:
        block.forward = _Again.around(block.forward, context)
    return blocks


def as_before(blocks: list[nn.Module]) -> None:
    """Undo `run_again`."""
    for block in blocks:
        del block.forward


def _blocks(module: nn.Module, trained: set[int]) -> Iterator[nn.Module]:
    """The largest parts below `module` that have children and few layers."""
    for child in module.children():
        inside = list(child.modules())
        layers = sum(any(True for _ in m.parameters(False)) for m in inside)
        lists = isinstance(child, nn.ModuleList | nn.ModuleDict)
        small = len(inside) > 1 and layers <= MOST_LAYERS and not lists
        if id(child) in trained or not any(id(m) in trained for m in inside):
            continue  # a layer with a rule of its own, or nothing to learn
        if small:
            yield child
        else:
            yield from _blocks(child, trained)


class _Again(torch.autograd.Function):
    """Runs a block without keeping anything, and again when its gradient is due."""

    @staticmethod
    def around(forward: Callable[..., Tensor], context: Again) -> Callable[..., Any]:
        """The block's forward, for tensors by position, giving one tensor."""

        def run(*inputs: Tensor) -> Any:
            if not torch.is_grad_enabled():
                return forward(*inputs)
            start = torch.zeros((), requires_grad=True)
            return _Again.apply(forward, context, start, *inputs)  # type: ignore[no-untyped-call]

        return run

    @staticmethod
    def forward(
        ctx: Any,
        forward: Callable[..., Tensor],
        context: Again,
        _start: Tensor,
        *inputs: Tensor,
    ) -> Tensor:
        ctx.forward_again, ctx.context = forward, context
        ctx.save_for_backward(*inputs)
        return forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        needed = ctx.needs_input_grad[3:]
        fresh = [
            x.detach().requires_grad_(need)
            for x, need in zip(ctx.saved_tensors, needed, strict=True)
        ]
        with torch.enable_grad(), ctx.context():
            found = ctx.forward_again(*fresh)
        torch.autograd.backward(found, grads)
        return (None, None, None, *(x.grad for x in fresh))


def _refuse_second_use(layer: nn.Module) -> None:
    raise PlanError(
        "GLD-P120",
        f"layer {type(layer).__name__} is used twice, in parts that run again.",
        why="The norm of its gradient would be taken of one use alone.",
        fix="Write checkpoint = false under [speed] in site.toml.",
    )
