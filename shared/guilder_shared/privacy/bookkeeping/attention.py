"""The rule for multi-head attention, batch first, without dropout.

Review, mathematics. Attention is four Linear layers around a map without parameters.
That map is computed again from the inputs; what comes back at each projection is then
one Linear's part. Their weights are disjoint, so square norms add up.
Review, crash order: in memory only.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation
from typing_extensions import override

from guilder_shared.privacy.bookkeeping.fallback import refused
from guilder_shared.privacy.bookkeeping.linear import LinearPart
from guilder_shared.privacy.bookkeeping.parts import Part, rule_for
from guilder_shared.privacy.bookkeeping.sums import Into

_PROJECTIONS = ("query", "key", "value")


@rule_for(nn.MultiheadAttention)
class AttentionPart(Part):
    """One use of a multi-head attention layer."""

    own_children = True
    inputs: Any  # query, key, value and masks by name

    _linears: "list[tuple[LinearPart, slice, str, str]]"

    @classmethod
    @override
    def check(cls, layer: Any) -> None:
        if not layer.batch_first:
            raise refused(layer, "rows are not first; say batch_first=True")
        if layer.dropout:
            raise refused(layer, "its dropout cannot be drawn again")
        if layer.bias_k is not None or layer.add_zero_attn:
            raise refused(layer, "add_bias_kv and add_zero_attn have no rule")

    @classmethod
    @override
    def take(cls, layer: Any, args: Any, kwargs: Any) -> Any:
        call = inspect.signature(layer.forward).bind(*args, **kwargs)
        call.apply_defaults()
        found = {n: x.detach() for n, x in call.arguments.items() if _is_tensor(x)}
        if found["query"].dim() != 3:
            raise refused(layer, "its input has no rows")
        return found

    @classmethod
    @override
    def rows(cls, layer: Any, args: Any, kwargs: Any) -> int:
        taken = cls.take(layer, args, kwargs)
        sizes = {taken[name].shape[0] for name in _PROJECTIONS}
        return int(sizes.pop()) if len(sizes) == 1 else 0

    @classmethod
    @override
    def version(cls, inputs: Any) -> int:
        return sum(int(inputs[name]._version) for name in _PROJECTIONS)

    def _uses(self) -> Iterator[tuple[LinearPart, slice, str, str]]:
        """Each Linear's part, its rows of the weight, and the names of its two."""
        layer, width = self.layer, self.layer.embed_dim
        weights, biases = self._projections()
        with torch.enable_grad():
            projected = [
                F.linear(self.inputs[name], weight, bias).requires_grad_()
                for name, weight, bias in zip(
                    _PROJECTIONS, weights, biases, strict=True
                )
            ]
            mixed = self._attend(*projected)
        back = self.grads @ layer.out_proj.weight.detach()
        grads = torch.autograd.grad(mixed, projected, back)
        for place, name in enumerate(_PROJECTIONS):
            rows = slice(place * width, (place + 1) * width)
            weight = "in_proj_weight"
            if not layer._qkv_same_embed_dim:
                rows, weight = slice(0, width), f"{name[0]}_proj_weight"
            part = self._linear(self.inputs[name], grads[place], weight, "in_proj_bias")
            if part is not None:
                yield part, rows, weight, "in_proj_bias"
        names = ("out_proj.weight", "out_proj.bias")
        part = self._linear(mixed.detach(), self.grads, *names)
        if part is not None:
            yield part, slice(None), *names

    def _linear(
        self, inputs: Tensor, grads: Tensor, weight: str, bias: str
    ) -> LinearPart | None:
        own = {"weight": weight, "bias": bias}
        names = frozenset(n for n, name in own.items() if name in self.names)
        if not names:
            return None
        return LinearPart(None, names, inputs, grads, self.units)

    def _projections(self) -> tuple[list[Tensor], list[Tensor | None]]:
        layer = self.layer
        if layer._qkv_same_embed_dim:
            weights = list(layer.in_proj_weight.detach().chunk(3))
        else:
            named = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
            weights = [weight.detach() for weight in named]
        if layer.in_proj_bias is None:
            return weights, [None] * 3
        return weights, list(layer.in_proj_bias.detach().chunk(3))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        heads = self.layer.num_heads
        q, k, v = (
            x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value)
        )
        mask = self._mask(query)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return found.transpose(1, 2).flatten(2)

    def _mask(self, query: Tensor) -> Tensor | None:
        """What is added before the softmax, (B or 1, heads or 1, places, places)."""
        masks = []
        if "attn_mask" in self.inputs:
            mask = _added(self.inputs["attn_mask"], query)
            if mask.dim() == 3:
                mask = mask.view(len(query), -1, *mask.shape[1:])
            masks.append(mask)
        if "key_padding_mask" in self.inputs:
            mask = _added(self.inputs["key_padding_mask"], query)
            masks.append(mask[:, None, None])
        return sum(masks[1:], start=masks[0]) if masks else None

    @override
    def instantiate(self, names: frozenset[str]) -> dict[str, Tensor]:
        self.names = names
        params = dict(self.layer.named_parameters())
        found: dict[str, Tensor] = {}
        for place, (part, rows, weight, bias) in enumerate(self._uses()):
            grads = part.instantiate(part.names)
            for like, name in (("weight", weight), ("bias", bias)):
                if like in grads and name not in found:
                    shape = (self.units.num, *params[name].shape)
                    found[name] = grads[like].new_zeros(shape)
            if "weight" in grads:
                found[weight][:, rows] = grads["weight"]
            if "bias" in grads:
                found[bias][:, self._bias_rows(place, bias)] = grads["bias"]
        return found

    def _bias_rows(self, place: int, bias: str) -> slice:
        width = self.layer.embed_dim
        if bias != "in_proj_bias":
            return slice(None)
        return slice(place * width, (place + 1) * width)

    @override
    def square_norms(self) -> Tensor:
        self._linears = list(self._uses())
        self.drop()
        return torch.stack([part.square_norms() for part, *_ in self._linears]).sum(0)

    @override
    def forget(self, finite: Tensor) -> None:
        for part, *_ in self._linears:
            part.forget(finite)

    @override
    def weighted_sum(self, factors: Tensor, into: Mapping[str, Into]) -> None:
        for place, (part, rows, weight, bias) in enumerate(self._linears):
            views = {}
            if "weight" in part.names:
                views["weight"] = into[weight].rows(rows)
            if "bias" in part.names:
                views["bias"] = into[bias].rows(self._bias_rows(place, bias))
            part.weighted_sum(factors, views)

    @override
    def entering(self) -> list[Tensor]:
        return [x for part, *_ in self._linears for x in part.entering()]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -torch.inf)
