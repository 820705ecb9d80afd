"""A model that can be trained privately, out of one that cannot, where a rule exists.

What has no such rule (a recurrent layer, a custom layer that mixes rows, a buffer that
fills) is left as it is: `model_check.check` names it. This module trains nothing and
sees no data. It imports torch.

Review, mathematics: nothing here promises privacy; what is promised is checked by
`model_check` and the engine on the model that comes out.
Review, crash order: in memory only.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_MOST_GROUPS = 32
_FEWEST_IN_GROUP = 4  # channels: a group of one number is all mean


class Frozen(nn.Module):
    """BatchNorm that learns nothing any more: a constant scale and shift.

    Args:
        scale: One a channel.
        shift: One a channel.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("shift", shift.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(rows, channels, ...) to the same shape."""
        shape = (1, -1, *[1] * (x.dim() - 2))
        return x * self.scale.view(shape) + self.shift.view(shape)


def fix(model: nn.Module, *, freeze_norms: bool = False) -> nn.Module:
    """A copy of the model without what a rule can replace.

    BatchNorm becomes GroupNorm with its scale and shift, or a constant; layers that
    compute in place no longer do; dropout is switched off.

    Args:
        model: It is left alone.
        freeze_norms: Keep what BatchNorm has seen, as a constant: for weights that
            were trained on public data. Without, norms are learnt anew, privately. A
            BatchNorm that is frozen in eval mode already stays what it computes.

    Returns:
        A model of the same parameters' names, but for BatchNorm's own. It may still
        be refused: check it.
    """
    fixed = copy.deepcopy(model)
    if isinstance(fixed, _BatchNorm):
        return _norm(fixed, freeze=freeze_norms)
    for layer in list(fixed.modules()):
        for name, child in list(layer.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(layer, name, _norm(child, freeze=freeze_norms))
        _switch_off(layer)
    return fixed


def groups_for(channels: int) -> int:
    """Groups of a GroupNorm in BatchNorm's place: at most 32, of 4 channels or more."""
    most = min(_MOST_GROUPS, max(1, channels // _FEWEST_IN_GROUP))
    return next(n for n in range(most, 0, -1) if channels % n == 0)


def _norm(old: Any, *, freeze: bool) -> nn.Module:
    has_seen = old.running_mean is not None
    was_frozen = not old.training and not any(
        p.requires_grad for p in old.parameters(recurse=False)
    )
    if has_seen and (freeze or was_frozen):
        return _constant(old)
    width = old.num_features
    one_number_each = isinstance(old, nn.BatchNorm1d)  # (rows, channels), perhaps
    groups = 1 if one_number_each else groups_for(width)
    new = nn.GroupNorm(groups, width, eps=old.eps, affine=old.affine)
    if old.affine:
        new.load_state_dict({"weight": old.weight, "bias": old.bias})
        new.weight.requires_grad_(old.weight.requires_grad)
        new.bias.requires_grad_(old.bias.requires_grad)
    return new.train(old.training)


def _constant(old: Any) -> Frozen:
    scale = torch.rsqrt(old.running_var + old.eps)
    if old.affine:
        scale = scale * old.weight
    shift = -old.running_mean * scale
    return Frozen(scale, shift + old.bias if old.affine else shift)


def _switch_off(layer: nn.Module) -> None:
    """In place and at random, where a layer says so by torch's own names."""
    changed: Any = layer
    if getattr(layer, "inplace", False) is True:
        changed.inplace = False
    if isinstance(layer, nn.modules.dropout._DropoutNd):
        changed.p = 0.0
    if isinstance(layer, nn.MultiheadAttention) and not math.isclose(layer.dropout, 0):
        changed.dropout = 0.0
