"""Our private step under Opacus' accountants: an optimizer that their hooks fit.

For programs that already use Opacus: the book-keeping engine clips and adds the noise,
while step hooks and accountants of Opacus see a `DPOptimizer`. Guilder's own studies
never load this; their ledger accounts. It imports opacus: import it lazily.

Review, mathematics: the gradient that arrives is already noised and divided; nothing is
clipped or noised here. Accountants are told a noise multiplier smaller by the slack of
our clipping's arithmetic, so what they report holds for what was done.
Review, crash order: in memory only; an accountant of Opacus keeps nothing on disk.
"""

from collections.abc import Callable
from typing import Any

from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.bookkeeping.step import PrivateStep, make_private_step


class BookKeepingOptimizer(DPOptimizer):  # type: ignore[misc]  # opacus ships no types
    """A `DPOptimizer` whose gradients come from a `PrivateStep`.

    Hand it to `make_private_step` as the optimizer: every private step, one of an empty
    batch too, calls the hook of `attach_step_hook` once and then the optimizer within.
    Its own backward passes and `step` outside a private step do nothing private.

    Args:
        optimizer: Any of torch's, over the trained parameters.
        noise_multiplier: As the private step's.
        clip_norm: As the private step's.
    """

    def __init__(
        self, optimizer: Any, *, noise_multiplier: float, clip_norm: float
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier / (1 + SENSITIVITY_SLACK),
            max_grad_norm=clip_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )

    @property
    def accumulated_iterations(self) -> int:
        """One: each private step answers one Poisson draw."""
        return 1

    def pre_step(self, closure: Callable[[], float] | None = None) -> bool:
        """Call the step hook; the gradient is noised and divided already."""
        if self.step_hook:
            self.step_hook(self)
        return True

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Account and learn: called by the private step."""
        self.pre_step()
        self.original_optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient; no per-sample gradients exist."""
        self.original_optimizer.zero_grad(set_to_none)


def make_opacus_step(
    model: nn.Module,
    losses: Callable[[Any, Any], Tensor],
    optimizer: Any,
    *,
    clip_norm: float,
    noise_multiplier: float,
    divisor: float,
    **more: Any,
) -> tuple[PrivateStep, BookKeepingOptimizer]:
    """A private step, and the optimizer that Opacus' accountants hook onto.

    Attach with `optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(rate))`.

    Args:
        model: As for `make_private_step`, and so are all others.
        losses: Outputs and targets to one loss per row.
        optimizer: Any of torch's.
        clip_norm: C, L2.
        noise_multiplier: In units of C.
        divisor: sample_rate x public size, public.
        **more: Handed on to `make_private_step`.

    Raises:
        PlanError: As `make_private_step`.
    """
    hooked = BookKeepingOptimizer(
        optimizer, noise_multiplier=noise_multiplier, clip_norm=clip_norm
    )
    step = make_private_step(
        model,
        losses,
        hooked,
        clip_norm=clip_norm,
        noise_multiplier=noise_multiplier,
        divisor=divisor,
        **more,
    )
    return step, hooked
