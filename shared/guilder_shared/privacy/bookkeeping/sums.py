"""The clipped sum in the making: where every layer's part adds what its units give.

A first addition to a parameter's place is written, not added: nothing is zeroed before
and read again. This module computes no gradient and adds no noise.

Review, mathematics. The vector is float64, or of the parameters' own dtype where all
rows of a step are few enough to be added in it (`parts.SUM_UNITS`) and not isolated.
What was never written counts as zero and is made so before anybody reads the whole.
Review, crash order: in memory only; what an empty place still holds is overwritten
before it is read.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_STRIP = 64  # columns


class Into:
    """The place of one parameter, or of some of its rows.

    Args:
        view: A view of the sum, in the parameter's shape; it is changed.
        empty: Whether nothing was added so far: its numbers then mean nothing.
    """

    def __init__(self, view: Tensor, *, empty: bool = False) -> None:
        self._view, self._empty = view, empty

    def add(self, x: Tensor) -> None:
        """Add a tensor of the parameter's shape and any floating dtype."""
        if self._empty:
            self._view.copy_(x)
            self._empty = False
        else:  # a sum of two dtypes would be converted number by number
            self._view.add_(x.to(self._view.dtype))

    def add_product(self, left: Tensor, right: Tensor) -> None:
        """Add left @ right: a matrix, or a vector of as many numbers as are here."""
        if left.dtype != self._view.dtype:
            return self.add((left @ right).view(self._view.shape))
        if _is_narrow(left, right):
            return self.add((right.mT @ left.mT).mT)
        beta = 0 if self._empty else 1  # with 0, what is there is not even read
        self._empty = False
        if right.dim() == 1:
            self._view.view(-1).addmv_(left, right, beta=beta)
        else:
            self._view.addmm_(left, right, beta=beta)
        return None

    def numbers(self) -> Tensor:
        """The sum so far, to be changed in place."""
        if self._empty:
            self._view.zero_()
            self._empty = False
        return self._view

    def forget(self) -> None:
        """What is here means nothing any more."""
        self._empty = True

    def rows(self, rows: slice) -> "Into":
        """The place of some rows alone."""
        return Into(self.numbers()[rows])


def _is_narrow(left: Tensor, right: Tensor) -> bool:
    """Where the transposed product is so much faster that turning it back pays.

    Kernels for matrices go through the rows of a product in strips of its columns; few
    columns are half a strip. Measured with MKL and AVX-512.
    """
    if right.dim() == 1:
        return False
    columns = right.shape[1]
    return 1 < columns <= _STRIP and 4 * columns <= left.shape[0]


class Sum:
    """The clipped sum of one step, its parameters behind one another.

    Args:
        params: Whose sum it is.
        vector: Shape (numbers,); it is changed.
        empty: Whether its numbers mean nothing so far.
    """

    def __init__(
        self, params: Sequence[nn.Parameter], vector: Tensor, *, empty: bool
    ) -> None:
        self.vector = vector
        sizes = [p.numel() for p in params]
        views = torch.split_with_sizes(vector, sizes)
        self._into = {
            id(p): Into(x.view(p.shape), empty=empty)
            for x, p in zip(views, params, strict=True)
        }

    def into(self, p: nn.Parameter) -> Into:
        """The place of one parameter."""
        return self._into[id(p)]

    def whole(self) -> Tensor:
        """The vector, zero wherever nothing was added."""
        for place in self._into.values():
            place.numbers()
        return self.vector

    def clear(self) -> None:
        """Make it nothing again."""
        for place in self._into.values():
            place.forget()
