"""The engine: one forward, one backward of input gradients, one clipped sum.

Layers are watched by hooks. While it computes, no parameter asks for a gradient, so
autograd makes input gradients only; each layer's part then gives the units' norms and
the weighted sum. This module draws nothing, adds no noise and steps no optimizer.

Review, mathematics. A unit's gradient is scaled to at most C' = C (1 - 2**-10) by norms
that are right to 2**-11 (`norms`), and added in float32 over at most 256 rows, in
float64 from there: adding or removing one unit moves the sum by at most C (1 + s),
s = 1e-3, which is charged and tested. A unit whose gradient is not finite contributes
exactly zero. Nothing depends on the number of units. A parameter that is used more than
once has its uses added before the norm is taken. Public: C, shapes, strategies.
Review, crash order: in memory only; the caller has charged the turn before.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from guilder_shared.errors import PlanError

# Imported for the rules they register.
from guilder_shared.privacy.bookkeeping import (  # noqa: F401
    attention,
    conv,
    embedding,
    linear,
    normalisation,
    validate,
)
from guilder_shared.privacy.bookkeeping.fallback import AnyPart, refused
from guilder_shared.privacy.bookkeeping.norms import factors, square_norms
from guilder_shared.privacy.bookkeeping.parts import (
    Part,
    Units,
    add_weighted,
    find,
    keep_rows,
)

CLIP_MARGIN = 1 - 2.0**-10  # clip a little below C: rounding then stays below C (1 + s)

Choose = Callable[[type[Part], Any, frozenset[str], Any, Tensor, Units], str | None]

_log = logging.getLogger(__name__)


class _Entry(torch.autograd.Function):
    """Makes a tensor that needs no gradient the start of what autograd computes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _start: Tensor) -> Tensor:
        ctx.mark_dirty(x)  # not a view: the model may change it in place
        return x

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class BookKeeping:
    """Clipped sums of per-unit gradients of one model.

    Not for several threads at once: the model's layers are watched.

    Args:
        model: What is trained; parameters that need no gradient stay frozen.
        clip_norm: C, L2, in the gradient's units; positive and finite.
        choose: Picks a strategy for a part, None for the rule's own choice. It may
            look at shapes only; results do not depend on it beyond rounding.

    Raises:
        PlanError: As `validate.trained_layers`.
    """

    def __init__(
        self, model: nn.Module, clip_norm: float, choose: Choose | None = None
    ) -> None:
        self.model, self.clip_norm = model, clip_norm
        self._choose = choose
        self._layers = validate.trained_layers(model, AnyPart)
        params = [p for *_, owned in self._layers for p in owned.values()]
        self.params = list({id(p): p for p in params}.values())
        self.num_numbers = sum(p.numel() for p in self.params)
        self._watching: Callable[..., Any] | None = None
        self._handles = [
            layer.register_forward_hook(self._hook(place), with_kwargs=True)
            for place, (_, layer, _, _) in enumerate(self._layers)
        ]
        for name, layer, *_ in self._layers:
            if find(layer) is None:
                _log.info(
                    "layer %s (%s) has no rule of its own: its per-unit gradients "
                    "are made one by one through torch.func",
                    name,
                    type(layer).__name__,
                )

    def close(self) -> None:
        """Stop watching the model."""
        for handle in self._handles:
            handle.remove()

    def zeros(self) -> Tensor:
        """An empty sum: (numbers,), float64, parameters in the order of `params`."""
        device = self.params[0].device
        return torch.zeros(self.num_numbers, dtype=torch.float64, device=device)

    def split(self, total: Tensor) -> list[Tensor]:
        """Views of a sum, one in the shape of each of `params`."""
        parts = torch.split_with_sizes(total, [p.numel() for p in self.params])
        return [x.view(p.shape) for x, p in zip(parts, self.params, strict=True)]

    def check_rows(self, compute: Callable[[int], object]) -> None:
        """Refuse a model that mixes up rows or keeps what it saw.

        Args:
            compute: Runs the model on the given number of synthetic rows.

        Raises:
            PlanError: GLD-P051 a layer does not see one row per row, GLD-P021 a
                buffer changed.
        """
        before = {n: (id(b), b._version) for n, b in self.model.named_buffers()}
        for rows in (2, 3):  # a layer that sees 2 of 2 by chance does not see 3 of 3

            def look(place: int, args: Any, kwargs: Any, _: Any, n: int = rows) -> None:
                name, layer, rule, _params = self._layers[place]
                validate.refuse_rows(name, layer, rule.rows(layer, args, kwargs), n)

            with torch.no_grad(), self._watched(look):
                compute(rows)
        for name, buffer in self.model.named_buffers():
            if before.get(name) != (id(buffer), buffer._version):
                validate.refuse_changed_buffer(name)

    def add_clipped(
        self, losses: Callable[[], Tensor], total: Tensor, units: Units
    ) -> None:
        """Add the clipped gradients of some units to a sum.

        Args:
            losses: Runs the model and gives one loss per row, shape (rows,). A unit's
                gradient is that of the sum of its rows' losses.
            total: From `zeros`; it is changed.
            units: Which rows are one unit.

        Guarantee: one unit more or less moves the sum by at most C (1 + s) in L2; a
        unit with NaN or infinity in its gradient contributes exactly zero.

        Raises:
            PlanError: GLD-P051, GLD-P052, GLD-P053, GLD-P054 the model or the losses
                are not what can be clipped. None depends on a row's value.

        Source: Abadi et al. 2016, algorithm 1, line "Clip gradient".
        """
        run = _Pass(self, units)
        with self._frozen(), self._watched(run.forward), torch.enable_grad():
            found = losses()
            _check_losses(found, units)
            if found.requires_grad:
                torch.autograd.backward(found.sum())
        run.add(total)

    def check_gradient(self, losses: Callable[[], Tensor], units: Units) -> None:
        """Compare the sum without clipping with autograd's gradient.

        Args:
            losses: As for `add_clipped`, on synthetic rows that every trained part of
                the model learns from; it must draw nothing at random.
            units: Which rows are one unit.

        Raises:
            PlanError: GLD-P055 they differ: something trains out of sight.
        """
        total, clip_norm = self.zeros(), self.clip_norm
        try:
            self.clip_norm = 1e30
            self.add_clipped(losses, total, units)
        finally:
            self.clip_norm = clip_norm
        found = torch.autograd.grad(losses().sum(), self.params, allow_unused=True)
        for grad, seen in zip(found, self.split(total), strict=True):
            wanted = torch.zeros_like(seen) if grad is None else grad.double()
            if float((seen - wanted).norm()) > 1e-3 * float(wanted.norm()) + 1e-9:
                raise PlanError(
                    "GLD-P055",
                    f"a gradient of shape {tuple(wanted.shape)} is not autograd's.",
                    why="A parameter is used where the engine cannot see it.",
                    fix="Call the layer that holds the parameter.",
                )

    def _hook(self, place: int) -> Callable[..., Any]:
        def hook(_layer: Any, args: Any, kwargs: Any, output: Any) -> Any:
            if self._watching is None:
                return None
            return self._watching(place, args, kwargs, output)

        return hook

    @contextmanager
    def _watched(self, by: Callable[..., Any]) -> Iterator[None]:
        before, self._watching = self._watching, by
        try:
            yield
        finally:
            self._watching = before

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """While a rule runs its layer again."""
        before, self._watching = self._watching, None
        try:
            yield
        finally:
            self._watching = before

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        for p in self.params:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in self.params:
                p.requires_grad_(True)


def _check_losses(losses: Tensor, units: Units) -> None:
    rows = units.rows
    if losses.shape != (rows,):
        raise PlanError(
            "GLD-P052",
            f"the losses have shape {tuple(losses.shape)}, not ({rows},).",
            why="Each record needs one loss of its own.",
            fix='Use reduction="none", and reduce over all but the first dimension.',
        )


class _Pass:
    """One forward and backward: what it recorded, and its clipped sum."""

    def __init__(self, engine: BookKeeping, units: Units) -> None:
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
        self.uses.update(id(p) for p in owned.values())
        first = output[0] if isinstance(output, tuple) else output
        if not first.requires_grad:
            first = _Entry.apply(first, self.start)  # type: ignore[no-untyped-call]
        version = rule.version(inputs)

        def backward(grads: Tensor) -> None:
            if rule.version(inputs) != version:
                _refuse_changed_input(name, layer)
            with torch.no_grad(), self.engine.unwatched():
                self._note(rule, layer, owned, inputs, grads.detach())

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
            choose = self.engine._choose
            units = self.units
            strategy = choose and choose(rule, layer, single, inputs, grads, units)
            part = rule(layer, single, inputs, grads, units, strategy)
            self.square += part.square_norms()
            self.parts.append((owned, part))

    def add(self, total: Tensor) -> None:
        """Clip every unit and add all to `total`."""
        for grads in self.shared.values():
            self.square += square_norms(grads)
        dtype = self.engine.params[0].dtype
        limit = self.engine.clip_norm * CLIP_MARGIN
        weights, finite = factors(self.square, limit, dtype)
        clean = bool(finite.all())
        views = self.engine.split(total)
        into = {id(p): x for p, x in zip(self.engine.params, views, strict=True)}
        with torch.no_grad(), self.engine.unwatched():
            while self.parts:  # each is forgotten when it has been added
                owned, part = self.parts.pop()
                if not clean:
                    part.forget(finite)
                part.weighted_sum(weights, {n: into[id(p)] for n, p in owned.items()})
            for key, grads in self.shared.items():
                kept = grads if clean else keep_rows(grads, finite)
                add_weighted(weights, kept, into[key])


def _refuse_changed_input(name: str, layer: nn.Module) -> None:
    raise PlanError(
        "GLD-P053",
        f"the input of layer {name} ({type(layer).__name__}) is changed in place "
        "after the layer has seen it.",
        why="Its gradient would be that of other numbers.",
        fix="Write x = x + y instead of x += y, and inplace=False.",
    )
