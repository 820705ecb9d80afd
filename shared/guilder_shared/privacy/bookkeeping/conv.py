"""The rules for convolutions of one, two and three dimensions, also transposed.

Legend: B rows, U units, C image channels, P signal channels, G groups, K offsets of the
kernel, T places of the signal.

Review, mathematics. A convolution's gradient is, for each offset of the kernel, the
product of the signal (what came back) with the image shifted by that offset; for a
transposed convolution the image is what came back and the signal is the input. So one
code serves both. Per-unit gradients are made by one batched product an offset, or by
one of all windows side by side, of few rows at once; or norms come from Gram matrices
of places, where the patches' Gram is the sum of K shifted windows of the pixels' Gram;
zeros around the image add nothing to it. Isolated, Gram matrices and windows are made
of all rows at once: a row's are its own.
Review, crash order: in memory only.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation
from typing_extensions import override

from guilder_shared.privacy.bookkeeping.norms import ghost_square_norms, square_norms
from guilder_shared.privacy.bookkeeping.parts import (
    Part,
    few_at_once,
    rule_for,
)
from guilder_shared.privacy.bookkeeping.sums import Into

_AT_ONCE = 1 << 19  # numbers of Gram matrices or windows made at once: 2 MiB
_GHOST_PLACES = 256  # above, Gram matrices of places are too large to be worth it


@rule_for(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class ConvPart(Part):
    """One use of a convolution."""

    def image(self) -> Tensor:
        """What the kernel moves over, padded: (B, C, ...)."""
        pads = self.layer._reversed_padding_repeated_twice
        if not any(pads):
            return self.inputs
        mode = self.layer.padding_mode
        return F.pad(self.inputs, pads, "constant" if mode == "zeros" else mode)

    def signal(self) -> Tensor:
        """What is multiplied with the image's windows: (B, P, ...)."""
        return self.grads

    @override
    def strategies(self) -> tuple[str, ...]:
        if self.units.of_row is not None:
            return ("shift",)
        found = ["shift"]
        if self._flat_fits():
            found += ["flat", "stacked"]
        else:
            found.append("windows")
        if self.layer.groups == 1 and self._places() <= 4 * _GHOST_PLACES:
            found.append("ghost")
        return (*found, "single")

    @override
    def choose(self) -> str:
        possible = self.strategies()
        places, signal = self._places(), self.signal()
        image, _ = self.unpadded()
        channels = image.shape[1] // self.layer.groups
        numbers = channels * signal.shape[1] * math.prod(self.layer.kernel_size)
        work = places * (channels + signal.shape[1] + 4 * numbers / channels)
        if "ghost" in possible and places <= _GHOST_PLACES and 2 * work < numbers:
            return "ghost"
        if "flat" in possible:
            return "flat"
        # windows of strided images overlap little: hardly more than what is there
        windows = places * numbers // signal.shape[1] * self.layer.groups
        there = math.prod(image.shape[1:]) + places * signal.shape[1]
        little = windows <= 2 * there
        return "windows" if "windows" in possible and little else "shift"

    def _places(self) -> int:
        return math.prod(self.signal().shape[2:])

    def _flat_fits(self) -> bool:
        """Whether windows of the flattened image are plain offsets of it."""
        layer = self.layer
        one = (1,) * len(layer.kernel_size)
        return bool(
            len(one) == 2
            and layer.stride == one
            and layer.dilation == one
            and layer.groups == 1
            and layer.kernel_size != one
        )

    def _windows(self, image: Tensor) -> Iterator[Tensor]:
        """The image under each offset of the kernel, at the signal's places: views."""
        layer, shape = self.layer, self.signal().shape[2:]
        for offset in itertools.product(*map(range, layer.kernel_size)):
            window = image
            axes = zip(offset, layer.stride, layer.dilation, shape, strict=True)
            for axis, (at, stride, dilation, size) in enumerate(axes, start=2):
                if stride == 1:
                    window = window.narrow(axis, at * dilation, size)
                else:
                    begin, end = at * dilation, at * dilation + stride * (size - 1) + 1
                    place = [slice(None)] * window.dim()
                    place[axis] = slice(begin, end, stride)
                    window = window[tuple(place)]
            yield window

    @override
    def instantiate(self, names: frozenset[str]) -> dict[str, Tensor]:
        grads = {}
        if "bias" in names:
            grads["bias"] = self.units.sum(self.grads.flatten(2).sum(2))
        if "weight" in names:
            make = {
                "flat": self._flat,
                "stacked": self._stacked,
                "windows": self._together,
                "single": self._single,
            }
            weight = make.get(self.strategy, self._shifted)()
            grads["weight"] = self.units.sum(weight)
        return grads

    def _shifted(self) -> Tensor:
        """(B, P, C/G, *kernel): one batched product for each offset."""
        signal, groups = self.signal(), self.layer.groups
        rows = len(signal)
        image = self.image()
        narrow = signal.reshape(rows * groups, signal.shape[1] // groups, -1)
        width = image.shape[1] // groups
        windows = list(self._windows(image))
        # a row's numbers lie together, offsets first: norms and sums need no copy
        out = signal.new_empty(rows * groups, len(windows), narrow.shape[1], width)
        for at, window in enumerate(windows):
            flat = window.reshape(rows * groups, width, -1)
            torch.bmm(narrow, flat.mT, out=out[:, at])
        found = out.view(rows, groups, *out.shape[1:]).permute(0, 1, 3, 4, 2)
        return found.reshape(rows, -1, width, *self.layer.kernel_size)

    def _together(self) -> Tensor:
        """As `_shifted`, all windows side by side: one batched product of few rows."""
        signal, groups, image = self.signal(), self.layer.groups, self.image()
        rows, outputs = signal.shape[:2]
        kernel, width = self.layer.kernel_size, image.shape[1] // groups
        offsets, places = math.prod(kernel), self._places()
        out = signal.new_empty(rows, groups, outputs // groups, offsets * width)
        most = self._rows_at_once(groups * offsets * width * places)
        for first in range(0, rows, most):
            some = slice(first, first + most)
            narrow = signal[some].reshape(-1, outputs // groups, places)
            # (rows, offsets, channels, ...) to (rows x groups, offsets x channels, T)
            wide = torch.stack(list(self._windows(image[some])), 1).flatten(3)
            wide = wide.view(-1, offsets, groups, width, places).transpose(1, 2)
            wide = wide.reshape(-1, offsets * width, places)
            torch.bmm(narrow, wide.mT, out=out[some].flatten(0, 1))
        found = out.view(rows, outputs, offsets, width).transpose(2, 3)
        return found.reshape(rows, outputs, width, *kernel)

    def _flat(self) -> Tensor:
        """As `_shifted` for stride 1: windows are offsets of the flat image."""
        signal, image = self.signal(), self.image()
        (rows, outputs, height, width), channels = signal.shape, image.shape[1]
        kernel_height, kernel_width = self.layer.kernel_size
        line = image.shape[3]
        length = height * line
        flat = F.pad(image, (0, 0, 0, 1)).flatten(2)
        narrow = F.pad(signal, (0, line - width)).flatten(2)
        # a row's numbers lie together, offsets first: norms and sums need no copy
        out = signal.new_empty(rows, kernel_height, kernel_width, outputs, channels)
        for i, j in itertools.product(range(kernel_height), range(kernel_width)):
            begin = i * line + j
            torch.bmm(narrow, flat[:, :, begin : begin + length].mT, out=out[:, i, j])
        return out.permute(0, 3, 4, 1, 2)

    def _stacked(self) -> Tensor:
        """As `_flat`, the kernel's columns stacked: fewer, larger products."""
        signal, image = self.signal(), self.image()
        (rows, outputs, height, width), channels = signal.shape, image.shape[1]
        kernel_height, kernel_width = self.layer.kernel_size
        length = height * width
        columns = [image[:, :, :, j : j + width] for j in range(kernel_width)]
        flat = torch.stack(columns, 1).reshape(rows, kernel_width * channels, -1)
        narrow = signal.flatten(2)
        out = signal.new_empty(rows, kernel_height, outputs, kernel_width * channels)
        for i in range(kernel_height):
            begin = i * width
            torch.bmm(narrow, flat[:, :, begin : begin + length].mT, out=out[:, i])
        shape = (rows, kernel_height, outputs, kernel_width, channels)
        return out.view(shape).permute(0, 2, 4, 1, 3)

    def _single(self) -> Tensor:
        """As `_shifted`, by torch's own weight gradient of one row at a time."""
        out = self.grads.new_empty(len(self.grads), *self.layer.weight.shape)
        pairs = zip(self.inputs[:, None], self.grads[:, None], strict=True)
        for row, (a, g) in enumerate(pairs):  # not stacked: that is twice the memory
            out[row] = self._torch_weight(a, g)
        return out

    def _torch_weight(self, inputs: Tensor, grads: Tensor) -> Tensor:
        layer = self.layer
        transposed = layer.transposed
        padding = layer.padding
        output_padding = layer.output_padding
        zeros = layer.padding_mode == "zeros" and not isinstance(padding, str)
        if not (transposed or zeros):
            inputs, padding = self._padded(inputs), [0] * len(layer.kernel_size)
        found: Tensor = torch.ops.aten.convolution_backward(
            grads,
            inputs,
            layer.weight,
            None,
            layer.stride,
            padding,
            layer.dilation,
            transposed,
            output_padding,
            layer.groups,
            [False, True, False],
        )[1]
        return found

    def _padded(self, inputs: Tensor) -> Tensor:
        before, self.inputs = self.inputs, inputs
        try:
            return self.image()
        finally:
            self.inputs = before

    @override
    def square_norms(self) -> Tensor:
        if self.strategy != "ghost":
            return super().square_norms()
        rows = len(self.grads)
        square = torch.zeros(rows, dtype=torch.float64, device=self.grads.device)
        if "bias" in self.names:
            self.kept["bias"] = self.grads.flatten(2).sum(2)
            square += square_norms(self.kept["bias"])
        if "weight" in self.names:
            square += self._ghost_norms()
        return square

    def _ghost_norms(self) -> Tensor:
        """Of the weight, from Gram matrices of few rows at once: they fit the cache."""
        rows, places = len(self.grads), self._places()
        most = self._rows_at_once(places**2)
        weight, signal = self.layer.weight, self.signal().flatten(2)
        width = max(x.numel() for x in (weight[0], weight[:, 0]))
        image, pads = self.unpadded()
        found = [signal.new_empty(0, dtype=torch.float64)]
        for first in range(0, rows, most):
            some = slice(first, first + most)

            def exact(units: Tensor, first: int = first) -> Tensor:
                return self._exact(units + first)

            grads = torch.bmm(signal[some].mT, signal[some])
            inputs = self._patch_gram(image[some], pads)
            found.append(ghost_square_norms(inputs, grads, exact, width=width))
        return torch.cat(found)

    def _rows_at_once(self, numbers: int) -> int:
        """How many rows' numbers fit the cache; all where rows must be alike."""
        if self.units.isolated or self.grads.is_cuda:
            return max(1, len(self.grads))
        return max(1, _AT_ONCE // max(1, numbers))

    def unpadded(self) -> tuple[Tensor, Sequence[int]]:
        """The image, and how many zeros are missing before it on each axis."""
        if self.layer.padding_mode != "zeros":
            return self.image(), [0] * len(self.layer.kernel_size)
        return self.inputs, self.layer._reversed_padding_repeated_twice[-2::-2]

    def _patch_gram(self, image: Tensor, pads: Sequence[int]) -> Tensor:
        """Gram of patches: K shifted windows of the pixels' Gram, (B, T, T)."""
        rows, _, *shape = image.shape
        size, places = self.signal().shape[2:], self._places()
        flat = image.flatten(2)
        pixels = torch.bmm(flat.mT, flat).view(rows, *shape, *shape)
        total = pixels.new_zeros(rows, *size, *size)
        for offset in itertools.product(*map(range, self.layer.kernel_size)):
            axes = enumerate(zip(offset, pads, shape, strict=True))
            met = [self._met(axis, *where) for axis, where in axes]
            here, there = [x for x, _ in met], [x for _, x in met]
            # a window slides over both sets of axes at once; beyond the image are zeros
            total[(slice(None), *here, *here)] += pixels[(slice(None), *there, *there)]
        return total.view(rows, places, places)

    def _met(self, axis: int, at: int, pad: int, size: int) -> tuple[slice, slice]:
        """The signal's places where this offset meets the image, and the image's."""
        stride, shift = self.layer.stride[axis], at * self.layer.dilation[axis] - pad
        begin = max(0, -(shift // stride))
        most = min(self.signal().shape[2 + axis], (size - 1 - shift) // stride + 1)
        num, first = max(0, most - begin), stride * begin + shift
        return slice(begin, begin + num), slice(first, first + stride * num, stride)

    def _exact(self, units: Tensor) -> Tensor:
        """Square norms of a few units in float64."""
        wide = (self.inputs[units].double(), self.grads[units].double())
        part = type(self)(self.layer, frozenset({"weight"}), *wide, self.units, "shift")
        return square_norms(part._shifted())

    @override
    def weighted_sum(self, factors: Tensor, into: Mapping[str, Into]) -> None:
        super().weighted_sum(factors, into)
        if self.strategy != "ghost" or "weight" not in self.names:
            return
        if self.units.isolated:
            self._sum_windows(factors, into["weight"].numbers())
            return
        by_row = factors.to(self.grads.dtype).view(-1, *[1] * (self.grads.dim() - 1))
        for a, g, scale in few_at_once(self.inputs, self.grads, by_row):
            into["weight"].add(self._torch_weight(a, g * scale))

    def _sum_windows(self, factors: Tensor, into: Tensor) -> None:
        """The sum in float64 throughout, one product for each offset of the kernel."""
        signal = self.signal().flatten(2).double() * factors[:, None, None]
        narrow = signal.transpose(0, 1).flatten(1)
        views = into.flatten(2).unbind(2)
        for view, window in zip(views, self._windows(self.image()), strict=True):
            flat = window.flatten(2).transpose(1, 2).double().flatten(0, 1)
            view.addmm_(narrow, flat)


@rule_for(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
class ConvTransposePart(ConvPart):
    """One use of a transposed convolution: image and signal change places."""

    @override
    def image(self) -> Tensor:
        pads = [p for side in reversed(self.layer.padding) for p in (side, side)]
        return F.pad(self.grads, pads) if any(pads) else self.grads

    @override
    def signal(self) -> Tensor:
        return self.inputs

    @override
    def unpadded(self) -> tuple[Tensor, Sequence[int]]:
        return self.grads, self.layer.padding

    def _flat_fits(self) -> bool:
        return False  # output padding may leave lines that no window reaches
