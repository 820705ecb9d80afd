"""The torch modules around a body: its head, and low-rank adapters in it.

It imports torch, `adapters` does not. This module knows no study.
"""

from collections.abc import Collection

from torch import Tensor, nn

from guilder_shared.models.adapters import ADAPTED


class Headed(nn.Module):
    """A body that makes features, and a linear head.

    Args:
        body: (rows, ...) to (rows, features).
        features: How many.
        outputs: How many.
        bias: Whether the head adds a constant to each output.
    """

    def __init__(
        self, body: nn.Module, features: int, outputs: int, *, bias: bool
    ) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(features, outputs, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, ...) to (rows, outputs)."""
        found: Tensor = self.head(self.body(x))
        return found


class HeadAlone(nn.Module):
    """The head of a model whose features were computed before.

    Args:
        features: How many.
        outputs: How many.
        bias: As in `Headed`.
    """

    def __init__(self, features: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.head = nn.Linear(features, outputs, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, features) to (rows, outputs)."""
        found: Tensor = self.head(x)
        return found


class Adapted(nn.Linear):
    """A linear layer and a thin way past it: x W' + b + x A' B'.

    The layer's own names stay, so that its published weights load.

    Args:
        like: The layer it replaces; its weights are taken over.
        rank: Width of the way past it.
    """

    def __init__(self, like: nn.Linear, rank: int) -> None:
        super().__init__(like.in_features, like.out_features, like.bias is not None)
        self.load_state_dict(like.state_dict())
        self.down = nn.Linear(like.in_features, rank, bias=False)
        self.up = nn.Linear(rank, like.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, ..., inputs) to (rows, ..., outputs)."""
        found: Tensor = super().forward(x) + self.up(self.down(x))
        return found


def adapt(module: nn.Module, rank: int) -> nn.Module:
    """The same module with adapters where `adapters.ADAPTED` says."""
    for name, layer in module.named_children():
        if name in ADAPTED and isinstance(layer, nn.Linear):
            setattr(module, name, Adapted(layer, rank))
        else:
            adapt(layer, rank)
    return module


def freeze(module: nn.Module, trained: Collection[str]) -> nn.Module:
    """The same module; only the named parameters ask for a gradient."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trained)
    return module
