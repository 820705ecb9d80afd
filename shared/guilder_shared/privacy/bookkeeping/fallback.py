"""The rule for layers without a rule: per-unit gradients through torch.func.

Exact for any layer that computes each row by itself and draws nothing at random, at
the price of computing it again. It is slow and holds every per-unit gradient.

Review, mathematics: the layer is run again, row by row under vmap, so what it does
across rows cannot enter; it must give what it gave in the pass, or it is refused.
Review, crash order: in memory only.
"""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from guilder_shared.errors import PlanError
from guilder_shared.privacy.bookkeeping.parts import Part


class AnyPart(Part):
    """One use of a layer of any kind."""

    @classmethod
    @override
    def check(cls, layer: Any) -> None:
        if isinstance(layer, nn.RNNBase):
            raise refused(layer, "it gives several outputs")

    @override
    def instantiate(self, names: frozenset[str]) -> dict[str, Tensor]:
        params = dict(self.layer.named_parameters())
        asked = {n: params[n].detach() for n in sorted(names)}
        rest = {n: p.detach() for n, p in params.items() if n not in names}
        rest |= dict(self.layer.named_buffers())

        def of_row(inputs: Tensor, grads: Tensor) -> dict[str, Tensor]:
            def compute(trained: dict[str, Tensor]) -> Tensor:
                return self.run(trained | rest, inputs)

            output, pull = torch.func.vjp(compute, asked)  # type: ignore[misc]
            found: dict[str, Tensor] = pull(grads.reshape(output.shape))[0]
            return found

        try:
            rows = torch.func.vmap(of_row)(self.inputs, self.grads)
        except (RuntimeError, NotImplementedError) as error:
            raise refused(self.layer, str(error).split(".")[0]) from error
        return {name: self.units.sum(grad) for name, grad in rows.items()}

    def run(self, params: dict[str, Tensor], inputs: Any) -> Tensor:
        """The layer on a batch of one row."""
        output = torch.func.functional_call(self.layer, params, (inputs[None],))
        if not isinstance(output, Tensor):
            raise refused(self.layer, "it gives several outputs")
        return output


def refused(layer: Any, why: str) -> PlanError:
    """The error for a layer, or an option of one, that no rule covers."""
    return PlanError(
        "GLD-P054",
        f"layer {type(layer).__name__} cannot be trained privately: {why}.",
        why="Its per-unit gradients cannot be computed exactly.",
        fix="Use another layer or option, or freeze it.",
    )
