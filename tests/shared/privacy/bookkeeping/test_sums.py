"""A sum in the making: what was there before is never part of it."""

import math

import pytest
import torch
from torch import Tensor, nn

from guilder_shared.privacy.bookkeeping.parts import add_weighted
from guilder_shared.privacy.bookkeeping.sums import Into, Sum


def place(dtype: torch.dtype, *shape: int) -> tuple[Tensor, Into]:
    left_over = torch.full(shape, math.nan, dtype=dtype)
    return left_over, Into(left_over, empty=True)


@pytest.mark.parametrize("high", [4, 40])  # a narrow product is made transposed
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_that_an_empty_place_held_enters_the_sum(
    dtype: torch.dtype, high: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    left = torch.randn(high, 7, generator=generator)
    right = torch.randn(7, 4, generator=generator)
    product, once = place(dtype, high, 4)
    by_rows, some = place(dtype, high, 7)

    once.add_product(left, right)
    once.add_product(left, right)
    some.rows(slice(0, 2)).add(left[:2])

    assert torch.allclose(product, (2 * (left @ right)).to(dtype), rtol=1e-5)
    assert torch.equal(by_rows[:2], left[:2].to(dtype))
    assert not by_rows[2:].any()


def test_parameters_that_got_nothing_count_as_zero() -> None:
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))]
    total = Sum(params, torch.full((5,), math.nan), empty=True)

    total.into(params[1]).add(torch.ones(3))

    assert total.whole().tolist() == [0, 0, 1, 1, 1]
    total.clear()
    assert total.whole().tolist() == [0] * 5


@pytest.mark.parametrize("isolated", [False, True])
def test_units_laid_out_in_another_order_add_up_to_the_same(isolated: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    factors = torch.rand(300, generator=generator, dtype=torch.float64)
    grads = torch.randn(300, 2, 3, 4, generator=generator).permute(0, 3, 1, 2)
    found, into = place(torch.float64, 4, 2, 3)

    add_weighted(factors, grads, into, isolated=isolated)

    wanted = (grads.double() * factors[:, None, None, None]).sum(0)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-4)
