"""Releasing a sum: noise and rounding as in `noise.add_noise`, divided, and wiped."""

import numpy as np
import pytest
import torch
from torch import nn

from guilder_shared.privacy import noise
from guilder_shared.privacy.ahead import Order
from guilder_shared.privacy.normals import BLOCK
from guilder_shared.privacy.release import Release
from guilder_shared.privacy.sampling import TurnKeys

KEYS = TurnKeys.seeded(5, site="site-1", round_no=1)
SHAPES = ((3, BLOCK), (7,), (5, 2, 3))
NUM = 3 * BLOCK + 7 + 30
DIVISOR = 37.3


def params(dtype: torch.dtype) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in SHAPES]


def order(step: int = 0) -> Order:
    return Order(step, NUM, 0.7, KEYS)


def some_sum() -> torch.Tensor:
    return torch.linspace(-40, 40, NUM, dtype=torch.float64)


def joined(grads: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([g.flatten() for g in grads])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("begun", [True, False])
def test_what_is_released_is_the_noised_sum_divided_in_the_gradients_dtype(
    dtype: torch.dtype, begun: bool
) -> None:
    release = Release(params(dtype))
    if begun:
        release.begin(order())

    grads = release.gradients(some_sum(), order(), DIVISOR)

    noised = noise.add_noise(some_sum().numpy(), 0.7, order().key, noise.grid_for(0.7))
    wide = torch.float64 if dtype == torch.bfloat16 else dtype
    expected = (torch.from_numpy(noised).to(wide) / DIVISOR).to(dtype)
    assert torch.equal(joined(grads), expected)
    assert [g.shape for g in grads] == [torch.Size(shape) for shape in SHAPES]


def test_the_number_of_threads_does_not_move_a_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("guilder_shared.privacy.noise.MANY", 0)
    before, found = torch.get_num_threads(), []

    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        release = Release(params(torch.float32))
        release.begin(order())
        found.append(joined(release.gradients(some_sum(), order(), DIVISOR)).clone())
    torch.set_num_threads(before)

    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_sum_is_wiped_when_it_is_released() -> None:
    total = some_sum()

    Release(params(torch.float32)).gradients(total, order(), DIVISOR)

    assert not total.any()


def test_no_sum_is_released_under_noise_that_another_had() -> None:
    release = Release(params(torch.float32))
    release.gradients(some_sum(), order(), DIVISOR)
    total = some_sum()

    with pytest.raises(ValueError, match="taken before"):
        release.gradients(total, order(), DIVISOR)

    assert torch.equal(total, some_sum())


def test_without_noise_the_sum_is_divided_alone() -> None:
    release = Release(params(torch.float32))

    release.begin(None)
    grads = release.gradients(some_sum(), None, DIVISOR)

    expected = some_sum().float() / DIVISOR
    assert torch.equal(joined(grads), expected)


def test_numbers_behind_the_parameters_are_noised_and_not_divided() -> None:
    release, more = Release(params(torch.float32)), 3
    total = torch.linspace(-40, 40, NUM + more, dtype=torch.float64)
    wanted = Order(0, NUM + more, 0.7, KEYS)
    expected = noise.add_noise(total.numpy(), 0.7, wanted.key, noise.grid_for(0.7))

    grads = release.gradients(total, wanted, DIVISOR)

    assert np.array_equal(release.further, expected[NUM:])
    assert joined(grads).numel() == NUM
    assert not total.any()
