"""The rules for LayerNorm, GroupNorm, InstanceNorm and RMSNorm.

Review, mathematics. The gain's gradient is the sum over places of g x-hat, the
offset's that of g, for each row by itself; x-hat is computed again from the input.
InstanceNorm keeps no running statistics, or it is refused: those mix rows.
Review, crash order: in memory only.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation
from typing_extensions import override

from guilder_shared.privacy.bookkeeping.fallback import refused
from guilder_shared.privacy.bookkeeping.parts import Part, rule_for


class _GainPart(Part):
    """Layers that multiply what they normalised by a gain and add an offset."""

    def instantiate(self, names: frozenset[str]) -> dict[str, Tensor]:
        grads = {}
        if "weight" in names:
            grads["weight"] = self.units.sum(self.gain())
        if "bias" in names:
            grads["bias"] = self.units.sum(self.reduced(self.grads))
        return grads

    def gain(self) -> Tensor:
        """The gain's gradient of each row."""
        # x-hat becomes the product: nothing else has the input's size
        return self.reduced(self.normalised().mul_(self.grads))

    def normalised(self) -> Tensor:
        """The input without its mean and scale; a tensor of its own."""
        raise NotImplementedError

    def reduced(self, x: Tensor) -> Tensor:
        """Sum over all places that share a number of the gain."""
        raise NotImplementedError


@rule_for(nn.LayerNorm)
class LayerNormPart(_GainPart):
    """One use of a LayerNorm layer."""

    @override
    def normalised(self) -> Tensor:
        shape = self.layer.normalized_shape
        return F.layer_norm(self.inputs, shape, None, None, self.layer.eps)

    @override
    def reduced(self, x: Tensor) -> Tensor:
        shape = self.layer.normalized_shape
        return x.reshape(len(x), -1, *shape).sum(1)


@rule_for(nn.RMSNorm)
class RMSNormPart(LayerNormPart):
    """One use of an RMSNorm layer."""

    @override
    def normalised(self) -> Tensor:
        shape = list(self.layer.normalized_shape)
        return F.rms_norm(self.inputs, shape, None, self.layer.eps)


@rule_for(nn.GroupNorm)
class GroupNormPart(_GainPart):
    """One use of a GroupNorm layer."""

    @override
    def normalised(self) -> Tensor:
        return F.group_norm(self.inputs, self.layer.num_groups, eps=self.layer.eps)

    @override
    def reduced(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1).sum(2)


@rule_for(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
class InstanceNormPart(_GainPart):
    """One use of an InstanceNorm layer; the input has rows and channels first."""

    @classmethod
    @override
    def check(cls, layer: Any) -> None:
        if layer.track_running_stats:
            raise refused(layer, "track_running_stats mixes the rows")

    @override
    def normalised(self) -> Tensor:
        return F.instance_norm(self.inputs, eps=self.layer.eps)

    @override
    def reduced(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1).sum(2)
