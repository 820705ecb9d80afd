"""The engine: one forward, one backward of input gradients, one clipped sum.

Layers are watched by hooks. While it computes, no parameter asks for a gradient, so
autograd makes input gradients only; each layer's part then gives the units' norms and
the weighted sum (`passes`). This module draws nothing, adds no noise and steps no
optimizer.

Review, mathematics. A unit's gradient is scaled to at most C' = C (1 - 2**-10) by norms
that are right to 2**-11 (`norms`), and added in float32 over at most 256 rows, in
float64 from there: adding or removing one unit moves the sum by at most C (1 + s),
s = 1e-3, which is charged and tested. A unit whose gradient is not finite contributes
exactly zero. Nothing depends on the number of units. A parameter that is used more than
once has its uses added before the norm is taken. Isolated, for weights that somebody
else chose: only float64 sums run across rows, and linear layers of few outputs are
computed as wider ones; what is left to check, that a row's place in a pass of constant
height changes no bit of it, `isolation` tries. Public: C, shapes, strategies.
Review, crash order: in memory only; the caller has charged the turn before.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from guilder_shared.errors import PlanError

# Imported for the rules they register.
from guilder_shared.privacy.bookkeeping import (  # noqa: F401
    attention,
    conv,
    embedding,
    frugal,
    linear,
    normalisation,
    validate,
)
from guilder_shared.privacy.bookkeeping.fallback import AnyPart
from guilder_shared.privacy.bookkeeping.parts import Part, Units, find
from guilder_shared.privacy.bookkeeping.passes import CLIP_MARGIN, Pass
from guilder_shared.privacy.bookkeeping.sums import Sum

__all__ = ["CLIP_MARGIN", "BookKeeping"]

_NARROW = 16  # below this many outputs, matrix kernels look at a row's address

Choose = Callable[[Part], str | None]

Losses = Callable[[], Tensor]
PassT = TypeVar("PassT", bound=Pass)

_log = logging.getLogger(__name__)


class BookKeeping:
    """Clipped sums of per-unit gradients of one model.

    Not for several threads at once: the model's layers are watched.

    Args:
        model: What is trained; parameters that need no gradient stay frozen.
        clip_norm: C, L2, in the gradient's units; positive and finite.
        choose: Picks a strategy for a part, None for the rule's own choice. It may
            look at shapes only; results do not depend on it beyond rounding.
        isolated: Keep every unit's contribution to itself, whatever the weights are.
        autocast: What the model computes in, bfloat16 for instance; norms, factors
            and sums stay in the parameters' dtype and float64. None for as it is.
        checkpoint: Compute activations again instead of keeping them (`frugal`).

    Raises:
        PlanError: As `validate.trained_layers`.
    """

    def __init__(
        self,
        model: nn.Module,
        clip_norm: float,
        choose: Choose | None = None,
        *,
        isolated: bool = False,
        autocast: torch.dtype | None = None,
        checkpoint: bool = False,
    ) -> None:
        self.model, self.clip_norm, self.isolated = model, clip_norm, isolated
        self.autocast = autocast
        self._choose = choose
        self._layers = validate.trained_layers(model, AnyPart)
        params = [p for *_, owned in self._layers for p in owned.values()]
        self.params = list({id(p): p for p in params}.values())
        self.num_numbers = sum(p.numel() for p in self.params)
        self._watching: Callable[..., Any] | None = None
        self._frugal, self._again = checkpoint, list[nn.Module]()
        if checkpoint:
            trained = {id(layer) for _, layer, *_ in self._layers}
            self._again = frugal.run_again(model, trained, self._cast)
        narrow = [x for x in model.modules() if isolated and _is_narrow(x)]
        self._handles = [x.register_forward_hook(self._by_rows) for x in narrow]
        self._handles += [
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
        frugal.as_before(self._again)
        self._again = []

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

    def add_clipped(self, losses: Losses, total: Tensor, units: Units) -> Tensor:
        """Add the clipped gradients of some units to a sum.

        Args:
            losses: Runs the model and gives one loss per row, shape (rows,). A unit's
                gradient is that of the sum of its rows' losses.
            total: From `zeros`; it is changed.
            units: Which rows are one unit.

        Returns:
            How much of each unit counted, (units,) float64: 1 for one that was not
            clipped, 0 for one that is not finite. Secret.

        Guarantee: one unit more or less moves the sum by at most C (1 + s) in L2; a
        unit with NaN or infinity in its gradient contributes exactly zero.

        Raises:
            PlanError: GLD-P051, GLD-P052, GLD-P053, GLD-P054 the model or the losses
                are not what can be clipped. None depends on a row's value.

        Source: Abadi et al. 2016, algorithm 1, line "Clip gradient".
        """
        return self.add_to(Sum(self.params, total, empty=False), losses, units)

    def add_to(self, total: Sum, losses: Losses, units: Units) -> Tensor:
        """As `add_clipped`, to a sum in the making."""
        return self._add(total, losses, units, self.clip_norm * CLIP_MARGIN)

    def _add(self, total: Sum, losses: Losses, units: Units, limit: float) -> Tensor:
        if not self._frugal:
            return self._run(losses, units, Pass).add(total, limit)
        counted, finite = self._run(losses, units, frugal.NormsOnly).factors(limit)
        again = partial(frugal.SumsOnly, total=total, counted=counted, finite=finite)
        self._run(losses, units, again).finish()
        return counted

    def add_unit(self, passes: Iterable[tuple[Losses, int, int]], total: Sum) -> Tensor:
        """Add the clipped gradient of one unit whose rows do not fit a pass.

        Its gradient is added up over passes, then clipped as a whole: memory stays
        flat however many rows there are.

        Args:
            passes: For each pass its losses as for `add_clipped`, how many rows it has
                and how many of the first are the unit's; the others count nothing.
            total: The sum in the making; it is changed.

        Returns:
            As `add_clipped`, of the one unit.

        Raises:
            PlanError: As `add_clipped`.
        """
        own, clean = self.zeros(), True
        whole = Sum(self.params, own, empty=False)
        for losses, rows, real in passes:
            counted = self._add(whole, losses, Units(rows), math.inf)
            clean = clean and bool(counted[:real].all())
        norm, factor = float(own.norm()), 0.0
        if clean and norm <= torch.finfo(self.params[0].dtype).max:
            limit = self.clip_norm * CLIP_MARGIN
            factor = min(1.0, limit / norm) if norm else 1.0
            total.whole().add_(own, alpha=factor)
        return own.new_tensor([factor])

    def entering(self, losses: Losses, units: Units) -> list[Tensor]:
        """What the sum of one pass is made of, rows or units first: for a trial.

        Args:
            losses: As for `add_clipped`, on made-up rows.
            units: Which rows are one unit.
        """
        run = self._run(losses, units, Pass)
        with torch.no_grad(), self.unwatched():
            return run.entering()

    def _run(
        self, losses: Losses, units: Units, kind: Callable[[Any, Units], PassT]
    ) -> PassT:
        if units.isolated != self.isolated:
            units = replace(units, isolated=self.isolated)
        run = kind(self, units)
        with self._frozen(), self._watched(run.forward), torch.enable_grad():
            with self._cast():
                found = losses()
            validate.refuse_losses(found.shape, units.rows)
            if found.requires_grad:
                torch.autograd.backward(found, torch.ones_like(found))
        return run

    def check_gradient(self, losses: Losses, units: Units) -> None:
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

    def _by_rows(self, layer: Any, args: Any, _output: Tensor) -> Tensor | None:
        if self._watching is None:
            return None
        return linear.widened(layer, args[0], _NARROW)

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

    def _cast(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.params[0].device.type, dtype=self.autocast)

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        for p in self.params:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in self.params:
                p.requires_grad_(True)


def _is_narrow(layer: nn.Module) -> bool:
    """A single output's kernel treats every row alike once heights are equal."""
    return type(layer) is nn.Linear and 1 < layer.out_features < _NARROW
