"""Norms of per-unit gradients, exact enough to clip by.

This module knows no layer and no budget.

Review, mathematics. A norm that is too small breaks the promise, so none may be off by
more than the margin in C' (2**-10). Squares are summed in float32 over at most 1024
numbers and in float64 from there: relative error below 2**-14, however they are added.
A ghost norm adds products that may cancel, so its error is relative to the terms' total
M**2; where M**2 exceeds 2**10 times the result it is computed again in float64, and the
norm is never taken below 2**-10 M, because the float32 product that is clipped by it
has an error relative to M as well.
A square below 2**-126 is lost in float32, and what it is multiplied with may be 2**126:
a norm that is a product could come out as zero whatever the gradient is. Over n numbers
at most n 2**-126 is lost, where denormal numbers are flushed as well. A product of two
norms counts that much more in each. Of a ghost norm at most n 2**-126 ((sum |a|)**2 +
(sum |g|)**2) is missing; where that is above 2**-12 of the result and above 2**-88, far
below the smallest C's square, it is computed again in float64. Norms of gradients that
are there miss 2**-49 at most, of 2**27 numbers: far below any C.
All rules look at one unit alone, and so do sums over layers: one after the other.
Review, crash order: in memory only.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Exact = Callable[[Tensor], Tensor]
Sizes = tuple[float, int, int, torch.dtype]

_BLOCK = 1024
_SUSPECT = 2.0**-10  # square norms below this part of M**2 are computed again
_FLOOR = 2.0**-20  # and never used below this part
_LOST, _UNSEEN = 2.0**-12, 2.0**-88  # relative, absolute: more is computed again
_HALVED = 32  # places from which two products of half the height are faster than one


def square_norms(x: Tensor) -> Tensor:
    """Square L2 norm of each row: (units, ...) to (units,), float64.

    Rows with NaN or infinity give NaN or infinity; a finite row gives a finite number.
    """
    if x.dim() != 2:
        x = x.permute(0, *as_laid_out(x)).reshape(len(x), -1)
    total: Tensor
    if x.dtype == torch.float64 or x.shape[1] == 0:
        total = torch.linalg.vecdot(x, x).double()
        return total
    whole = x.shape[1] // _BLOCK * _BLOCK
    if not whole:
        total = torch.linalg.vecdot(x, x).double()
    else:
        # A norm makes no tensor of squares.
        blocks = x[:, :whole].view(len(x), -1, _BLOCK)
        norms = torch.linalg.vector_norm(blocks, dim=2).double()
        total = torch.linalg.vecdot(norms, norms)
        rest = x[:, whole:]
        if rest.shape[1]:
            total += torch.linalg.vecdot(rest, rest)
    if not math.isfinite(total.sum().item()):  # beyond 1e19 squares leave float32
        rows = torch.nonzero(~torch.isfinite(total)).squeeze(1)
        wide = x[rows].double()
        total[rows] = torch.linalg.vecdot(wide, wide)
    return total


def as_laid_out(x: Tensor) -> list[int]:
    """A row's dimensions, those with the largest strides first: flat without a copy."""
    strides = x.stride()
    return sorted(range(1, x.dim()), key=lambda d: -strides[d])


def ghost_square_norms(
    inputs_gram: Tensor, grads_gram: Tensor, exact: Exact, *, width: int
) -> Tensor:
    """Square norm of sum_t g_t a_t' for each unit from two Gram matrices.

    Args:
        inputs_gram: a_t . a_s, shape (units, T, T); it is overwritten.
        grads_gram: g_t . g_s, shape (units, T, T).
        exact: Unit numbers to their square norms, computed in float64.
        width: Numbers of an a_t or a g_t, whichever has more.

    Returns:
        Shape (units,), float64.

    Source: Li, Tramer, Liang and Hashimoto 2022, "ghost clipping".
    """
    lengths = _lengths(inputs_gram, grads_gram)
    lost = _lost(width, inputs_gram.dtype)
    total = _added(inputs_gram.mul_(grads_gram))
    return _made_sure(total, lengths, lost, exact)


def sequence_square_norms(inputs: Tensor, grads: Tensor, exact: Exact) -> Tensor:
    """As `ghost_square_norms` from a_t and g_t themselves, (units, T, .) each.

    A Gram matrix is symmetric: of its lower left quarter nothing is computed.
    """
    places = inputs.shape[1]
    half = -(-places // 2) if places >= _HALVED else max(1, places)
    total = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    lengths = total.new_zeros(3, len(inputs))
    for begin in range(0, places, half):
        left, right = (
            torch.bmm(x[:, begin : begin + half], x[:, begin:].mT)
            for x in (inputs, grads)
        )
        lengths += _lengths(left, right)
        products = left.mul_(right)
        total += 2 * _added(products) - _added(products[:, :, :half])
    lost = _lost(max(inputs.shape[2], grads.shape[2]), inputs.dtype)
    return _made_sure(total, lengths, lost, exact)


def _lengths(inputs_gram: Tensor, grads_gram: Tensor) -> Tensor:
    """Sums over places of |a_t| |g_t|, of |a_t| and of |g_t|: (3, units), float64."""
    a, g = (
        x.diagonal(dim1=1, dim2=2).clamp(min=0).double().sqrt_()
        for x in (inputs_gram, grads_gram)
    )
    return torch.stack([(a * g).sum(1), a.sum(1), g.sum(1)])


def _lost(num: int, dtype: torch.dtype) -> float:
    """What a sum of so many squares may miss because they are too small for a float."""
    return num * torch.finfo(dtype).tiny


def _added(products: Tensor) -> Tensor:
    return products.sum(2).sum(1, dtype=torch.float64)


def _made_sure(total: Tensor, lengths: Tensor, lost: float, exact: Exact) -> Tensor:
    """Computed again where terms cancel or were lost.

    Args:
        total: Square norms, (units,) float64; it is changed.
        lengths: From `_lengths`; the first squared is M**2.
        lost: Of one square norm of a place.
        exact: As for `ghost_square_norms`.
    """
    bound = lengths[0].square()
    missing = lengths[1:].square().sum(0).mul_(lost)
    # Not `total < ...`: NaN must be computed again too.
    fine = total >= bound * _SUSPECT
    fine &= missing <= (total * _LOST).clamp_(min=_UNSEEN)
    if not bool(fine.all()):
        units = torch.nonzero(~fine).squeeze(1)
        total[units] = exact(units)
    return floored(total, bound)


def floored(square: Tensor, bound: Tensor) -> Tensor:
    """Square norms, never below the floor's part of `bound`, which is M**2."""
    return torch.maximum(square, bound * _FLOOR)


@dataclass(frozen=True)
class Product:
    """A layer's gradients as outer products: those of row i are right_i left_i'.

    Attributes:
        left: Shape (rows, .).
        right: Shape (rows, .).
        more: Square norm of what else right_i is multiplied with, a bias's 1 for
            instance; not below 0.
        norms: `row_norms` of `left` and of `right`, taken while they were fresh.
    """

    left: Tensor
    right: Tensor
    more: float
    norms: tuple[Tensor, Tensor]

    @property
    def sizes(self) -> Sizes:
        """`more`, numbers of a row on the left and on the right, and their dtype."""
        left, right = self.left.shape[1], self.right.shape[1]
        return self.more, left, right, self.left.dtype


def row_norms(x: Tensor) -> Tensor:
    """Norm of each row of a matrix, (rows,); a large one may come out as infinite."""
    if x.shape[1] <= _BLOCK or x.dtype == torch.float64:
        norms: Tensor = torch.linalg.vector_norm(x, dim=1)
        return norms
    return square_norms(x).sqrt()


def product_square_norms(products: Sequence[Product]) -> list[Tensor]:
    """(|left|**2 + more) |right|**2 of each row: one (rows,) float64 for each product.

    Never less, but for relative rounding: what float32 may have lost is added. A row
    beyond float32 may be infinite here; `widen` makes it right. All products at once:
    with few rows the number of calls is what costs.
    """
    if not products:
        return []
    num = len(products)
    each = [x.norms[0] for x in products] + [x.norms[1] for x in products]
    if any(x.dtype != each[0].dtype for x in each):
        each = [x.double() for x in each]
    norms = torch.stack(each).double()
    added = _constants(tuple(x.sizes for x in products), norms.device)
    squares = torch.addcmul(added, norms, norms)
    return list(squares[:num].mul_(squares[num:]).unbind())


def widen(squares: Sequence[Tensor], products: Sequence[Product]) -> None:
    """Compute rows that are not finite again in float64, in place.

    No other row changes a bit, so that none can tell what its neighbours are.
    """
    for square, one in zip(squares, products, strict=True):
        rows = torch.nonzero(~torch.isfinite(square)).squeeze(1)
        left, right = (x[rows].double().square().sum(1) for x in (one.left, one.right))
        more, lost = _added_to(one.sizes)
        square[rows] = (left + more) * (right + lost)


def _added_to(sizes: Sizes) -> tuple[float, float]:
    """What is added to square norms on the left and on the right.

    `more`, and what squares of so many numbers may have lost.
    """
    more, left, right, dtype = sizes
    return more + _lost(left, dtype), _lost(right, dtype)


@lru_cache(maxsize=64)
def _constants(sizes: tuple[Sizes, ...], device: torch.device) -> Tensor:
    """What is added to all left square norms, then to all right ones."""
    pairs = [_added_to(one) for one in sizes]
    values = [left for left, _ in pairs] + [right for _, right in pairs]
    return torch.tensor(values, dtype=torch.float64, device=device)[:, None]


def factors(
    square: Tensor, limit: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """How much of each unit counts: min(1, limit / norm), and 0 if it is not finite.

    Args:
        square: Square norms, float64.
        limit: C', positive.
        dtype: The gradients' own; a norm it cannot hold is not finite.

    Returns:
        The factors, float64, and which units are finite, both of shape (units,); None
        in place of the second if all are.
    """
    largest, norms = torch.finfo(dtype).max, square.sqrt()
    clipped = (limit / norms).clamp_(max=1.0)
    together = square.sum().item()
    if math.isfinite(together) and math.sqrt(together) <= largest:
        return clipped, None
    finite = norms <= largest  # false for NaN
    return torch.where(finite, clipped, 0.0), finite
