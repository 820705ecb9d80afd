"""The rule for Embedding layers.

Review, mathematics. A unit's gradient has one row for each token it holds: the sum of
what came back at that token's places. Those sums are made once and serve the norm and
the weighted sum alike; the table is never made per unit. Padding takes no gradient.
Review, crash order: in memory only.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from guilder_shared.privacy.bookkeeping.fallback import refused
from guilder_shared.privacy.bookkeeping.norms import square_norms
from guilder_shared.privacy.bookkeeping.parts import Part, keep_rows, rule_for
from guilder_shared.privacy.bookkeeping.sums import Into


@rule_for(nn.Embedding)
class EmbeddingPart(Part):
    """One use of an Embedding layer; ids may have any shape and strides."""

    _unit: Tensor  # of each (unit, token) pair, rising
    _token: Tensor
    _sums: Tensor  # (pairs, width)

    @classmethod
    @override
    def check(cls, layer: Any) -> None:
        for option in ("max_norm", "scale_grad_by_freq", "sparse"):
            if getattr(layer, option):
                raise refused(layer, f"{option} depends on the whole batch")

    def _pairs(self) -> None:
        num_tokens = self.layer.num_embeddings
        rows = torch.arange(len(self.inputs), device=self.grads.device)
        unit = rows if self.units.of_row is None else self.units.of_row
        ids = self.inputs.reshape(len(self.inputs), -1).long()
        grads = self.grads.reshape(-1, self.grads.shape[-1])
        key = (ids + unit[:, None] * num_tokens).reshape(-1)
        if self.layer.padding_idx is not None:
            taken = (ids != self.layer.padding_idx).reshape(-1)
            key, grads = key[taken], grads[taken]
        pairs, place = torch.unique(key, return_inverse=True)
        self._unit = torch.div(pairs, num_tokens, rounding_mode="floor")
        self._token = pairs - self._unit * num_tokens
        grads = grads.double() if self.units.isolated else grads
        self._sums = grads.new_zeros(len(pairs), grads.shape[1])
        self._sums.index_add_(0, place, grads)

    @override
    def instantiate(self, names: frozenset[str]) -> dict[str, Tensor]:
        self._pairs()
        table = self._sums.new_zeros(self.units.num, *self.layer.weight.shape)
        table[self._unit, self._token] = self._sums
        return {"weight": table}

    @override
    def square_norms(self) -> Tensor:
        self._pairs()
        self.drop()
        square = torch.zeros(
            self.units.num, dtype=torch.float64, device=self._sums.device
        )
        if self._sums.numel():
            square.index_add_(0, self._unit, square_norms(self._sums))
        return square

    @override
    def forget(self, finite: Tensor) -> None:
        self._sums = keep_rows(self._sums, finite[self._unit])

    @override
    def weighted_sum(self, factors: Tensor, into: Mapping[str, Into]) -> None:
        # In the sum's dtype from here: a token may occur in every unit.
        whole = into["weight"].numbers()
        scaled = self._sums * factors[self._unit, None].to(whole.dtype)
        whole.index_add_(0, self._token, scaled)

    @override
    def entering(self) -> list[Tensor]:
        # A token's place in the table is told apart by an exact factor.
        told = self._sums.double() * (self._token + 1)[:, None]
        units = told.new_zeros(self.units.num, told.shape[1])
        return [units.index_add_(0, self._unit, told)]
