"""What a model does with a gradient that is already private: plain descent.

torch's own optimizers import its compiler when first made, a second and some fifty
megabytes in every process that trains. This module draws nothing and knows no privacy.

Review, mathematics: post-processing of a noised gradient; it may keep state.
Review, crash order: in memory only.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class GradientDescent:
    """Stochastic gradient descent, to the bit as `torch.optim.SGD` without extras.

    It has the parts of a torch optimizer that Opacus' DPOptimizer asks for.

    Args:
        parameters: What is trained; frozen parameters are left alone.
        learning_rate: Positive.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], learning_rate: float
    ) -> None:
        self.learning_rate = learning_rate
        self.param_groups = [{"params": [p for p in parameters if p.requires_grad]}]
        self.state: defaultdict[nn.Parameter, dict[str, Any]] = defaultdict(dict)
        self.defaults: dict[str, Any] = {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the last gradient; it is never zeroed in place."""
        for p in self.param_groups[0]["params"]:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter against its gradient."""
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                p.add_(p.grad, alpha=-self.learning_rate)
