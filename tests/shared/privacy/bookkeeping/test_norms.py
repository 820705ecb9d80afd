"""Norms of per-unit gradients, against float64, where they are easy to get wrong."""

import pytest
import torch
from torch import Tensor

from guilder_shared.privacy.bookkeeping import norms


def sequences(places: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(places + width)
    return torch.randn(5, places, width, generator=generator)


def in_float64(a: Tensor, g: Tensor) -> Tensor:
    return (g.double().mT @ a.double()).square().sum((1, 2))


def exact_of(a: Tensor, g: Tensor) -> norms.Exact:
    return lambda units: in_float64(a[units], g[units])


@pytest.mark.parametrize("places", [1, 2, 31, 32, 33, 64, 101])
def test_the_norm_of_a_sequence_is_that_of_its_gradient(places: int) -> None:
    a, g = sequences(places, 7), sequences(places, 11)

    found = norms.sequence_square_norms(a, g, exact_of(a, g))

    assert torch.allclose(found, in_float64(a, g), rtol=1e-5)


def test_a_sequence_without_places_has_no_norm() -> None:
    a, g = sequences(0, 7), sequences(0, 11)

    assert not norms.sequence_square_norms(a, g, exact_of(a, g)).any()


def test_halves_that_cancel_are_computed_in_float64() -> None:
    a, g = sequences(64, 7), sequences(64, 11)
    a[0, 32:], g[0, 32:] = a[0, :32].clone(), -g[0, :32] * (1 + 1e-4)

    found = norms.sequence_square_norms(a, g, exact_of(a, g))

    wanted = in_float64(a, g)
    terms = (a.double().norm(dim=2) * g.double().norm(dim=2)).sum(1).square()
    assert torch.allclose(found, torch.maximum(wanted, terms * 2.0**-20), rtol=1e-5)
    assert bool((found >= wanted * (1 - 2.0**-11)).all())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e30])
def test_the_norm_of_a_row_is_that_of_its_outer_product(scale: float) -> None:
    a, g = scale * sequences(1, 300)[:, 0], sequences(1, 9)[:, 0]

    pair = (norms.row_norms(a), norms.row_norms(g))
    product = norms.Product(a, g, 1.0, pair)
    (found,) = norms.product_square_norms([product])
    norms.widen([found], [product])

    wide = a.double().square().sum(1) + 1.0
    assert torch.allclose(found, wide * g.double().square().sum(1), rtol=1e-5)


@pytest.mark.parametrize("tiny", [1e-45, 1e-38, 1e-25, 1e-23, 3e-22])
@pytest.mark.parametrize("more", [0.0, 1.0])
def test_numbers_whose_squares_float32_loses_are_never_taken_for_less(
    tiny: float, more: float
) -> None:
    small = torch.full((3, 300), tiny)
    large = torch.full((3, 9), 1.0 / tiny if tiny > 1e-38 else 1e38)

    for a, g in ((small, large), (large, small)):
        pair = (norms.row_norms(a), norms.row_norms(g))
        product = norms.Product(a, g, more, pair)
        (found,) = norms.product_square_norms([product])
        norms.widen([found], [product])

        wide = a.double().square().sum(1) + more
        assert bool((found >= wide * g.double().square().sum(1) * (1 - 2e-3)).all())


@pytest.mark.parametrize("tiny", [1e-40, 1e-23, 1e-22, 1e-21, 1e-18])
def test_a_sequence_whose_gram_float32_loses_is_computed_in_float64(
    tiny: float,
) -> None:
    small, large = sequences(8, 7) * tiny, sequences(8, 11) * 1e18

    for a, g in ((small, large), (large, small)):
        found = norms.sequence_square_norms(a, g, exact_of(a, g))
        at_once = norms.ghost_square_norms(
            torch.bmm(a, a.mT), torch.bmm(g, g.mT), exact_of(a, g), width=11
        )

        wanted = in_float64(a, g)
        assert bool((found >= wanted * (1 - 2.0**-10)).all())
        assert bool((at_once >= wanted * (1 - 2.0**-10)).all())


def test_places_that_are_zero_are_not_computed_again() -> None:
    a, g = sequences(64, 128), sequences(64, 32)
    g[1:3] = 0.0

    def refused(units: Tensor) -> Tensor:
        raise AssertionError(units)

    assert not norms.sequence_square_norms(a, g, refused)[1:3].any()


def test_a_row_beyond_float32_moves_no_bit_of_its_neighbours_norms() -> None:
    a, g = sequences(1, 300)[:, 0], sequences(1, 9)[:, 0]
    large = a.clone()
    large[2] *= 1e30
    before, after = (
        norms.Product(x, g, 1.0, (norms.row_norms(x), norms.row_norms(g)))
        for x in (a, large)
    )

    (alone,), (beside,) = (norms.product_square_norms([x]) for x in (before, after))
    norms.widen([beside], [after])

    others = torch.tensor([0, 1, 3, 4])
    assert torch.equal(alone[others], beside[others])
    wide = large[2].double().square().sum() * g[2].double().square().sum()
    assert torch.allclose(beside[2], wide, rtol=1e-5)
