"""What a model does with a gradient that is already private: descent in three ways.

Plain, with momentum, and Adam with its second moment corrected for the noise. torch's
own optimizers import its compiler when first made, a second and some fifty megabytes in
every process that trains. This module draws nothing and sees no row.

Review, mathematics: post-processing. A step reads `p.grad`, which has been noised, and
public constants: the learning rate, the momenta, the noise's standard deviation. The
event of a turn is therefore the same for all three. State is a function of noised
gradients and of the global model; it lives inside one turn and is forgotten with it: to
outlive the turn it would have to be sealed with the turn's result.
Review, crash order: in memory only.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

from guilder_shared.study.parts import Training

MOMENTUM: Final = 0.9
BETAS: Final = (0.9, 0.999)
FLOOR: Final = 1.0  # Adam divides by at least this many standard deviations of noise

_TINY: Final = 1e-16  # second moments below it are nothing: without noise, no 0 / 0


class GradientDescent:
    """Stochastic gradient descent, to the bit as `torch.optim.SGD`.

    It has the parts of a torch optimizer that Opacus' DPOptimizer asks for.

    Args:
        parameters: What is trained; frozen parameters are left alone.
        learning_rate: Positive.
        momentum: In [0, 1); 0 keeps no state.

    Attributes:
        noise_std: Public standard deviation of the noise in `p.grad`, in the gradient's
            own units; set it before each step. Plain descent does not use it.
        pull: Changes a noised gradient before it is used (`pull`); None leaves it.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        momentum: float = 0.0,
    ) -> None:
        self.learning_rate, self.momentum = learning_rate, momentum
        self.noise_std = 0.0
        self.pull: Callable[[nn.Parameter, Tensor], Tensor] | None = None
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
                grad = p.grad if self.pull is None else self.pull(p, p.grad)
                p.add_(self._direction(p, grad), alpha=-self.learning_rate)

    def _direction(self, p: nn.Parameter, grad: Tensor) -> Tensor:
        if not self.momentum:
            return grad
        if "velocity" not in self.state[p]:
            self.state[p]["velocity"] = grad.clone()
            return grad
        velocity: Tensor = self.state[p]["velocity"]
        return velocity.mul_(self.momentum).add_(grad)


class PrivateAdam(GradientDescent):
    """Adam whose second moment is corrected for the noise that was added.

    The mean square of a noised gradient is that of the gradient plus the noise's
    variance, a public constant, which would drown it: it is subtracted. What is left is
    floored, since an estimate of a small square may come out negative.

    Args:
        parameters: As for `GradientDescent`.
        learning_rate: Positive.
        betas: Decay of the first and of the second moment, both in [0, 1).
        floor: Least denominator, in standard deviations of the noise; positive. The
            larger, the nearer to descent with momentum.

    Source: Tang, Shpilevskiy and Lecuyer 2023, "DP-AdamBC", algorithm 1; the floor is
    theirs, in units of the noise; a changing noise is averaged like the squares.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        betas: tuple[float, float] = BETAS,
        floor: float = FLOOR,
    ) -> None:
        super().__init__(parameters, learning_rate)
        self.betas, self.floor = betas, floor
        self._steps = 0
        self._noise = 0.0  # moving average of the noise's variance

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter; `noise_std` must be that of this gradient."""
        second = self.betas[1]
        self._steps += 1
        self._noise = second * self._noise + (1 - second) * self.noise_std**2
        super().step()

    def _direction(self, p: nn.Parameter, grad: Tensor) -> Tensor:
        first, second = self.betas
        state = self.state[p]
        if not state:
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
        mean: Tensor = state["mean"].mul_(first).add_(grad, alpha=1 - first)
        square: Tensor = state["square"].mul_(second)
        square.addcmul_(grad, grad, value=1 - second)
        # Moments begin at zero: both averages are divided by the weight they have.
        whole = 1 - second**self._steps
        noise = self._noise / whole
        least = max(self.floor**2 * noise, _TINY)
        scale = (square / whole - noise).clamp_(min=least).sqrt_()
        return (mean / (1 - first**self._steps)).div_(scale)


def make(
    parameters: Iterable[nn.Parameter], training: Training
) -> GradientDescent | PrivateAdam:
    """The optimizer that a study names.

    Args:
        parameters: Of the model; frozen ones are left alone.
        training: `optimizer`, `learning_rate` and the optional keys of each.
    """
    rate = training.learning_rate
    if training.optimizer == "adam":
        first, second = training.betas or BETAS
        floor = FLOOR if training.floor is None else training.floor
        return PrivateAdam(parameters, rate, (first, second), floor)
    return GradientDescent(parameters, rate, training.momentum or 0.0)
