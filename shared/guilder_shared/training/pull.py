"""What holds a site's local steps to the consortium: FedProx and SCAFFOLD.

    gradient + proximal x (weights - global weights) + shift

This module reads no row and draws nothing. It imports torch: import it lazily.

Review, mathematics: both terms are added to a gradient that is noised already. The
proximal term is a function of the global model, which the server sent, and of the local
weights, which are that model and the noised steps of this turn; the shift is a function
of earlier releases (`variates`). Post-processing: the event of a turn, and so its
charge, is that of FedAvg. Both move the weights at which the next gradient is taken;
what a unit adds there is clipped alike at all weights.
Review, crash order: in memory only.

Source: Li et al. 2020, "Federated optimization in heterogeneous networks" (FedProx);
Karimireddy et al. 2020 (SCAFFOLD).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from guilder_shared.messages import Weights

Pull = Callable[[nn.Parameter, Tensor], Tensor]


def of(module: nn.Module, proximal: float | None, shift: Weights | None) -> Pull | None:
    """What changes each noised gradient of a turn; None where nothing does.

    Args:
        module: As the turn begins: its weights are the global model's.
        proximal: Strength of the pull to these weights; None for no pull.
        shift: Added to every gradient, by parameter name; None for nothing.
    """
    if proximal is None and shift is None:
        return None
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    starts: dict[nn.Parameter, Tensor] = {}
    if proximal is not None:
        starts = {p: p.detach().clone() for p in trained.values()}
    shifts: dict[nn.Parameter, Tensor] = {}
    for name, array in (shift or {}).items():
        values = torch.from_numpy(array.copy()).to(trained[name].device)
        shifts[trained[name]] = values

    def pull(p: nn.Parameter, grad: Tensor) -> Tensor:
        if p in starts:
            assert proximal is not None
            grad = torch.add(grad, p - starts[p], alpha=proximal)
        return grad + shifts[p] if p in shifts else grad

    return pull
