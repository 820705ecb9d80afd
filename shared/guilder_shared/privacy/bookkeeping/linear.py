"""The rule for Linear layers, on rows and on sequences.

Legend: B rows, T places, D inputs, P outputs, U units.

Review, mathematics. The gradient of one row is G = sum_t g_t a_t'. For T = 1 its norm
is |g| |a|. For a sequence either G is made for each row, or its norm comes from two
Gram matrices ("ghost"). A unit of several rows is one longer sequence; isolated, its
norm is made in float64 (`persons`). Isolated sums over rows are products in float64.
Review, crash order: in memory only.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from typing_extensions import override

from guilder_shared.privacy.bookkeeping import persons
from guilder_shared.privacy.bookkeeping.norms import (
    Product,
    row_norms,
    sequence_square_norms,
    square_norms,
)
from guilder_shared.privacy.bookkeeping.parts import (
    SUM_UNITS,
    Part,
    Units,
    add_weighted,
    few_at_once,
    rule_for,
)
from guilder_shared.privacy.bookkeeping.sums import Into

_FEW = 1 << 15  # numbers that one product in float64 adds faster than several


@rule_for(nn.Linear, NonDynamicallyQuantizableLinear)
class LinearPart(Part):
    """One use of a Linear layer."""

    @classmethod
    @override
    def early(cls, layer: Any, inputs: Tensor, units: Units) -> Tensor | None:
        is_row = units.of_row is None and inputs.dim() == 2
        # another dtype is not what the part will see
        return (
            row_norms(inputs) if is_row and inputs.dtype == layer.weight.dtype else None
        )

    @override
    def strategies(self) -> tuple[str, ...]:
        if self._is_row():
            return ("row",)
        return ("ghost", "instantiate")

    @override
    def choose(self) -> str:
        if self._is_row():
            return "row"
        if self._is_person():
            return "ghost"
        places = self._rows()[0].shape[1]
        d, p = self.inputs.shape[-1], self.grads.shape[-1]
        if not self.units.isolated:
            return "ghost" if 2 * places * (d + p) < 3 * d * p else "instantiate"
        # float64 products cost twice, numbers read and written about 16 operations
        gram, product = 2 * places * places * (d + p), 2 * places * d * p
        ghost = gram + 2 * product + 16 * places * (d + p)
        return "ghost" if ghost < product + 16 * d * p else "instantiate"

    def _is_row(self) -> bool:
        return self.units.of_row is None and self.inputs.dim() == 2

    def _is_person(self) -> bool:
        return self.units.isolated and self.units.of_row is not None

    def _rows(self) -> tuple[Tensor, Tensor]:
        """Inputs (B, T, D) and gradients (B, T, P)."""
        pair = (self.inputs, self.grads)
        a, g = (x.reshape(len(x), -1, x.shape[-1]) for x in pair)
        return a, g

    def _sequences(self) -> tuple[Tensor, Tensor]:
        """Inputs (U, T, D) and gradients (U, T, P), zeros after a unit's last row."""
        a, g = self._rows()
        if self.units.of_row is None:
            return a, g
        return _joined(a, self.units), _joined(g, self.units)

    @override
    def instantiate(self, names: frozenset[str]) -> dict[str, Tensor]:
        grads = {}
        if self._is_person():
            a, g = self._rows()
            if "weight" in names:
                grads["weight"] = persons.products(a, g, self.units)
            if "bias" in names:
                grads["bias"] = self.units.sum(g.sum(1))
            return grads
        a, g = self._sequences()
        if "weight" in names:
            grads["weight"] = torch.bmm(g.mT, a)
        if "bias" in names:
            grads["bias"] = g.sum(1)
        return grads

    @override
    def product(self) -> Product | None:
        if self.strategy != "row" or "weight" not in self.names:
            return None
        more = 1.0 if "bias" in self.names else 0.0
        seen = row_norms(self.inputs) if self.fresh is None else self.fresh
        norms = (seen, row_norms(self.grads))
        return Product(self.inputs, self.grads, more, norms)

    @override
    def square_norms(self) -> Tensor:
        if self.strategy == "instantiate":
            return super().square_norms()
        if self.strategy == "row":
            return square_norms(self.grads)  # the bias alone is trained
        if self._is_person():
            return self._person_norms()
        a, g = self._sequences()
        square = torch.zeros(len(a), dtype=torch.float64, device=a.device)
        if "bias" in self.names:
            self.kept["bias"] = g.sum(1)
            square += square_norms(self.kept["bias"])
        if "weight" in self.names:
            square += sequence_square_norms(a, g, lambda u: _exact(a[u], g[u]))
        return square

    def _person_norms(self) -> Tensor:
        a, g = self._rows()
        square = torch.zeros(self.units.num, dtype=torch.float64, device=a.device)
        if "bias" in self.names:
            self.kept["bias"] = self.units.sum(g.sum(1))
            square += square_norms(self.kept["bias"])
        if "weight" in self.names:
            square += persons.square_norms(a, g, self.units)
        return square

    @override
    def weighted_sum(self, factors: Tensor, into: Mapping[str, Into]) -> None:
        if self.strategy == "instantiate":
            return super().weighted_sum(factors, into)
        if self.units.isolated or self._is_small():
            return self._sum_rows(factors.double(), into)
        if "weight" in self.names:
            self._sum_products(factors, into)
        elif "bias" in self.names:
            add_weighted(factors, self.kept.get("bias", self.grads), into["bias"])
        return None

    def _is_small(self) -> bool:
        """Where one product in float64 is faster than several in float32."""
        a, g = self.inputs, self.grads
        return a.shape[0] > SUM_UNITS and a.numel() + g.numel() <= _FEW

    def _sum_products(self, factors: Tensor, into: Mapping[str, Into]) -> None:
        scale = self.units.spread(factors).to(self.grads.dtype)
        scale = scale.view(-1, *[1] * (self.grads.dim() - 1))
        narrow = self.inputs.shape[-1] < self.grads.shape[-1]  # the smaller is scaled
        for inputs, grads, by_row in few_at_once(self.inputs, self.grads, scale):
            a, g = (inputs * by_row, grads) if narrow else (inputs, grads * by_row)
            into["weight"].add_product(g.flatten(0, -2).mT, a.flatten(0, -2))
            if "bias" in self.names and not narrow:
                into["bias"].add(g.flatten(0, -2).sum(0))
        if "bias" in self.names and narrow:
            # a row of units of their own: its gradient is the bias's
            add_weighted(factors, self.kept.get("bias", self.grads), into["bias"])

    def _sum_rows(self, factors: Tensor, into: Mapping[str, Into]) -> None:
        """The sum in float64 throughout: its rounding does not grow with the batch."""
        by_row = self.units.spread(factors).view(-1, *[1] * (self.grads.dim() - 1))
        g = (self.grads.double() * by_row).reshape(-1, self.grads.shape[-1])
        if "weight" in self.names:
            a = self.inputs.reshape(-1, self.inputs.shape[-1])
            into["weight"].add_product(g.mT, a.double())
        if "bias" in self.kept:
            add_weighted(factors, self.kept["bias"], into["bias"], isolated=True)
        elif "bias" in self.names:
            into["bias"].add(g.sum(0))


def widened(layer: nn.Linear, inputs: Tensor, outputs: int) -> Tensor:
    """A layer of few outputs, computed as one of more: the others are thrown away.

    Args:
        layer: Its weight and bias are used.
        inputs: Shape (..., inputs).
        outputs: How many a kernel needs to treat all rows alike.

    Returns:
        Shape (..., the layer's outputs), with other rounding than the layer's own.
    """
    missing = outputs - layer.out_features
    weight = F.pad(layer.weight, (0, 0, 0, missing))
    bias = None if layer.bias is None else F.pad(layer.bias, (0, missing))
    return F.linear(inputs, weight, bias)[..., : layer.out_features]


def _exact(a: Tensor, g: Tensor) -> Tensor:
    """Square norms in float64, one unit at a time: a few units at most need it."""
    norms = [
        (y.double().mT @ x.double()).square().sum() for x, y in zip(a, g, strict=True)
    ]
    return torch.stack(norms)


def _joined(x: Tensor, units: Units) -> Tensor:
    """(B, T, D) to (U, most rows x T, D): a unit's rows behind one another."""
    assert units.of_row is not None
    counts = torch.bincount(units.of_row, minlength=units.num)
    first = torch.cumsum(counts, 0) - counts
    place = torch.arange(len(x), device=x.device) - first[units.of_row]
    most = int(counts.max()) if len(counts) else 0
    out = x.new_zeros(units.num, most, *x.shape[1:])
    out[units.of_row, place] = x
    return out.reshape(units.num, -1, x.shape[-1])
