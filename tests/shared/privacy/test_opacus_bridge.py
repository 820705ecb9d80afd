"""Our step beside Opacus: the same sums, its accountants' hooks, its validator."""

import copy
from collections.abc import Callable

import pytest
import torch
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
    GradSampleModuleFastGradientClipping,
)
from opacus.optimizers.optimizer_fast_gradient_clipping import (
    DPOptimizerFastGradientClipping,
)
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.bookkeeping.engine import CLIP_MARGIN
from guilder_shared.privacy.opacus_bridge import make_opacus_step
from guilder_shared.privacy.sampling import TurnKeys

KEYS = TurnKeys.seeded(3, site="site-1", round_no=1)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


def ids() -> nn.Module:
    return nn.Sequential(
        nn.Embedding(9, 8),
        nn.Linear(8, 8),
        nn.LayerNorm(8),
        nn.Flatten(),
        nn.Linear(48, 4),
    )


CASES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (mlp, torch.randn(20, 8, generator=torch.Generator().manual_seed(1))),
    "cnn": (cnn, torch.randn(20, 2, 6, 6, generator=torch.Generator().manual_seed(1))),
    "ids": (ids, torch.randint(9, (20, 6), generator=torch.Generator().manual_seed(1))),
}
TARGETS = torch.randint(4, (20,), generator=torch.Generator().manual_seed(2))


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])


def by_opacus(model: nn.Module, inputs: Tensor, clip_norm: float) -> None:
    """One step of learning rate 1 by Opacus' ghost clipping, without noise."""
    wrapped = GradSampleModuleFastGradientClipping(
        model, max_grad_norm=clip_norm, use_ghost_clipping=True, loss_reduction="sum"
    )
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(model.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=clip_norm,
        expected_batch_size=None,
        loss_reduction="sum",
    )
    criterion = DPLossFastGradientClipping(
        wrapped, optimizer, nn.CrossEntropyLoss(reduction="sum"), loss_reduction="sum"
    )
    criterion(wrapped(inputs), TARGETS).backward()
    optimizer.step()


@pytest.mark.filterwarnings("ignore:Full backward hook")  # Opacus' own
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("isolated", [False, True])
def test_a_step_is_that_of_opacus_ghost_clipping(name: str, isolated: bool) -> None:
    make, inputs = CASES[name]
    torch.manual_seed(0)
    ours = make().double()
    theirs, before = copy.deepcopy(ours), flat(ours)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    step, _ = make_opacus_step(
        ours,
        cross_entropy,
        torch.optim.SGD(ours.parameters(), lr=1.0),
        clip_norm=0.7 / CLIP_MARGIN,  # we clip a little lower
        noise_multiplier=0.0,
        divisor=1.0,
        isolated=isolated,
    )

    step(inputs, TARGETS)
    by_opacus(theirs, inputs, 0.7)

    mine, other = flat(ours) - before, flat(theirs) - before
    # Opacus adds 1e-6 to every norm; the norms here are about 1
    assert float((mine - other).norm()) <= 2e-6 * float(other.norm())


@pytest.mark.parametrize("accountant", [RDPAccountant(), PRVAccountant()])
def test_an_accountant_of_opacus_counts_every_step_and_the_slack(
    accountant: RDPAccountant | PRVAccountant,
) -> None:
    model = mlp()
    step, optimizer = make_opacus_step(
        model,
        cross_entropy,
        torch.optim.SGD(model.parameters(), lr=0.1),
        clip_norm=0.5,
        noise_multiplier=1.5,
        divisor=20.0,
        keys=KEYS,
    )
    optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=0.01))

    step(CASES["mlp"][1], TARGETS)
    step(CASES["mlp"][1][:0], TARGETS[:0])  # an empty batch costs as much

    ((noise, rate, num),) = accountant.history
    assert noise == pytest.approx(1.5 / (1 + SENSITIVITY_SLACK))
    assert (rate, num) == (0.01, 2)
    assert 0 < accountant.get_epsilon(delta=1e-5) < 1


def test_the_model_stays_one_that_opacus_validates() -> None:
    model = ModuleValidator.fix(nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8)))
    head = nn.Sequential(model, nn.Flatten(), nn.Linear(128, 4))
    step, _ = make_opacus_step(
        head,
        cross_entropy,
        torch.optim.SGD(head.parameters(), lr=0.1),
        clip_norm=0.5,
        noise_multiplier=1.0,
        divisor=20.0,
    )

    step(CASES["cnn"][1], TARGETS)

    assert ModuleValidator.validate(head) == []


def test_a_hook_sees_the_gradient_that_is_learnt_from() -> None:
    model = mlp()
    before = flat(model)
    step, optimizer = make_opacus_step(
        model,
        cross_entropy,
        torch.optim.SGD(model.parameters(), lr=1.0),
        clip_norm=0.5,
        noise_multiplier=1.0,
        divisor=20.0,
    )
    seen: list[Tensor] = []
    optimizer.attach_step_hook(lambda o: seen.append(o.params[0].grad.clone()))

    step(CASES["mlp"][1], TARGETS)

    moved = (before - flat(model))[: seen[0].numel()]
    assert torch.allclose(moved, seen[0].reshape(-1), atol=1e-6)
