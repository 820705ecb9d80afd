"""Every layer kind and strategy against a float64 loop over units."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from guilder_shared.privacy.bookkeeping import conv
from guilder_shared.privacy.bookkeeping.engine import CLIP_MARGIN
from guilder_shared.privacy.bookkeeping.parts import Units, find
from guilder_shared.privacy.bookkeeping.step import make_private_step

EXACT = {torch.float64: 1e-10, torch.float32: 1e-5}


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """One number per row, with a gradient that differs at every place."""
    return (outputs.flatten(1).tanh() * targets[:, : outputs[0].numel()]).sum(1)


def by_loop(
    model: nn.Module, inputs: Tensor, targets: Tensor, units: Tensor, clip_norm: float
) -> tuple[list[Tensor], Tensor]:
    """The sum of the paper in float64, one unit at a time, and the units' norms."""
    wide = copy.deepcopy(model).double()
    params = [p for p in wide.parameters() if p.requires_grad]
    if inputs.is_floating_point():
        inputs = inputs.double()
    sums = [torch.zeros_like(p) for p in params]
    norms = []
    for unit in torch.unique(units):
        mine = units == unit
        loss = losses(wide(inputs[mine]), targets[mine].double()).sum()
        found = torch.autograd.grad(loss, params, allow_unused=True)
        grads = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(params, found, strict=True)
        ]
        norms.append(torch.stack([g.norm() for g in grads]).norm())
        scale = min(1.0, clip_norm * CLIP_MARGIN / max(1e-30, float(norms[-1])))
        for total, grad in zip(sums, grads, strict=True):
            total += scale * grad
    return sums, torch.stack(norms)


def compare(
    model: nn.Module,
    inputs: Tensor,
    dtype: torch.dtype = torch.float64,
    *,
    units: Tensor | None = None,
    strategy: str | None = None,
    microbatch: int | None = None,
    isolated: bool = False,
) -> None:
    """Assert that the engine's sum is the loop's, per parameter, at the median clip."""
    model = copy.deepcopy(model).to(dtype)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    each = torch.arange(len(inputs)) if units is None else units
    targets = random(len(inputs), 4096, seed=1).to(dtype)
    _, norms = by_loop(model, inputs, targets, each, 1.0)
    clip_norm = max(1e-3, float(norms.median()))
    expected, _ = by_loop(model, inputs, targets, each, clip_norm)
    step = make_private_step(
        model,
        losses,
        None,
        clip_norm=clip_norm,
        noise_multiplier=0.0,
        divisor=1.0,
        microbatch=microbatch,
        isolated=isolated,
    )
    step.engine._choose = lambda *_: strategy

    total = step.clipped_sum(inputs, targets, units)

    trained = [p for p in model.parameters() if p.requires_grad]
    order = [
        next(i for i, q in enumerate(step.engine.params) if q is p) for p in trained
    ]
    found = step.engine.split(total)
    for want, place in zip(expected, order, strict=True):
        error = (found[place] - want).norm() / want.norm().clamp(min=1e-3 * clip_norm)
        assert float(error) <= EXACT[dtype]
    assert all(p.requires_grad for p in trained)


def strategies_of(layer: nn.Module, inputs: Tensor) -> tuple[str, ...]:
    """All strategies that the layer's rule offers for such an input."""
    rule = find(layer)
    assert rule is not None
    names = frozenset(n for n, _ in layer.named_parameters())
    with torch.no_grad():
        grads = layer(inputs)
    return rule(layer, names, inputs, grads, Units(len(inputs))).strategies()


def around(layer: nn.Module) -> nn.Module:
    """The layer in the middle, so that its gradient passes others."""
    return nn.Sequential(layer, nn.Tanh(), nn.Flatten()).double()


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 7), (6, 5)),
    "linear without bias": (lambda: nn.Linear(5, 7, bias=False), (6, 5)),
    "linear on a sequence": (lambda: nn.Linear(5, 7), (6, 4, 5)),
    "linear on a field": (lambda: nn.Linear(5, 3, bias=False), (6, 2, 3, 5)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, padding=1), (5, 3, 9)),
    "conv1d dilated": (
        lambda: nn.Conv1d(4, 4, 3, stride=2, dilation=2, groups=2),
        (5, 4, 11),
    ),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3, padding=1), (5, 3, 6, 7)),
    "conv2d no padding": (lambda: nn.Conv2d(3, 4, (2, 3), bias=False), (5, 3, 6, 7)),
    "conv2d stride": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), (5, 3, 7, 8)),
    "conv2d dilated": (lambda: nn.Conv2d(3, 4, 3, dilation=2, padding=2), (5, 3, 6, 7)),
    "conv2d groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), (5, 4, 6, 7)),
    "conv2d depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), (5, 4, 6, 7)),
    "conv2d pointwise": (lambda: nn.Conv2d(4, 3, 1), (5, 4, 6, 7)),
    "conv2d same": (lambda: nn.Conv2d(3, 4, (3, 4), padding="same"), (5, 3, 6, 7)),
    "conv2d reflect": (
        lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        (5, 3, 6, 7),
    ),
    "conv2d circular": (
        lambda: nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode="circular", stride=2),
        (5, 3, 6, 7),
    ),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2, stride=(1, 2, 1)), (4, 2, 4, 5, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), (5, 3, 4, 5)),
    "transposed stride": (
        lambda: nn.ConvTranspose2d(
            4, 6, 3, stride=2, padding=1, output_padding=1, groups=2
        ),
        (5, 4, 4, 5),
    ),
    "transposed dilated": (
        lambda: nn.ConvTranspose1d(3, 4, 3, dilation=2, stride=3),
        (5, 3, 4),
    ),
    "layer norm": (lambda: nn.LayerNorm(5), (6, 4, 5)),
    "layer norm of two axes": (lambda: nn.LayerNorm((4, 5)), (6, 3, 4, 5)),
    "layer norm on rows": (lambda: nn.LayerNorm(5, bias=False), (6, 5)),
    "rms norm": (lambda: nn.RMSNorm(5), (6, 4, 5)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (6, 4, 3, 5)),
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), (6, 4, 3, 5)),
    "instance norm 1d": (lambda: nn.InstanceNorm1d(4, affine=True), (6, 4, 9)),
    "a layer without a rule": (lambda: nn.PReLU(4), (6, 4, 3)),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    make, shape = LAYERS[name]
    torch.manual_seed(3)
    layer = make().double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * random(*p.shape, seed=4))
    return layer, random(*shape, seed=5)


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layers_clipped_sum_is_the_loops(
    name: str, dtype: torch.dtype, isolated: bool
) -> None:
    layer, inputs = made(name)

    compare(around(layer), inputs, dtype, isolated=isolated)


SEVERAL = [n for n in LAYERS if n.startswith(("conv", "linear", "transposed"))]


@pytest.mark.parametrize("at_once", [1, 1 << 19])
@pytest.mark.parametrize("name", SEVERAL)
def test_every_strategy_gives_the_same_sum(
    name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv, "_AT_ONCE", at_once)  # numbers, of a row or of all rows
    layer, inputs = made(name)
    for strategy in strategies_of(layer, inputs):
        for dtype in EXACT:
            compare(around(layer), inputs, dtype, strategy=strategy)
        compare(around(layer), inputs, strategy=strategy, isolated=True)


@pytest.mark.parametrize("rows_at_once", [1, 2, 5])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_gram_matrices_of_few_rows_at_once_find_the_row_that_cancels(
    kind: Callable[..., nn.Module], rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = kind(4, 3, 3, stride=2, bias=False)
    inputs = random(5, 4, 9, 9).float()
    with torch.no_grad():
        grads = random(*layer(inputs).shape, seed=1).float()
    image, signal = (inputs, grads) if kind is nn.Conv2d else (grads, inputs)
    # row 3 sees the same everywhere, and what comes back adds up to almost nothing
    image[3] = 1.0
    signal[3] -= signal[3].mean((1, 2), keepdim=True) - 1e-2
    places = signal[0, 0].numel()
    monkeypatch.setattr(conv, "_AT_ONCE", rows_at_once * places**2)
    rule, names, units = find(layer), frozenset({"weight"}), Units(5)
    assert rule is not None

    with torch.no_grad():
        found = rule(layer, names, inputs, grads, units, "ghost").square_norms()
        wide = rule(layer, names, inputs.double(), grads.double(), units, "shift")
        wanted = wide.square_norms()

    assert found.numpy() == pytest.approx(wanted.numpy(), rel=1e-5)


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_rows_of_one_person_are_clipped_as_one(name: str, isolated: bool) -> None:
    layer, inputs = made(name)
    inputs = torch.cat([inputs, inputs * 0.5 + 0.1])
    persons = torch.tensor([7, 2, 7, 7, 2, 9, 1, 1, 30, 2, 2, 2])[: len(inputs)]

    model = around(layer)
    compare(model, inputs, units=persons, isolated=isolated)
    compare(
        model, inputs, torch.float32, units=persons, microbatch=3, isolated=isolated
    )


@pytest.mark.parametrize("name", LAYERS)
def test_either_parameter_may_be_frozen(name: str) -> None:
    layer, inputs = made(name)
    for frozen in [n for n, _ in layer.named_parameters()]:
        model = around(copy.deepcopy(layer))
        model.get_parameter(f"0.{frozen}").requires_grad_(False)
        if any(p.requires_grad for p in model.parameters()):
            compare(model, inputs)


EXAMPLES = settings(max_examples=25, derandomize=True, deadline=None, database=None)
SMALL = st.integers(1, 3)


@EXAMPLES
@given(
    rows=st.integers(1, 5),
    channels=st.tuples(SMALL, SMALL, SMALL),
    size=st.tuples(st.integers(5, 8), st.integers(5, 8)),
    kernel=st.tuples(SMALL, SMALL),
    stride=st.tuples(SMALL, SMALL),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    place=st.integers(0, 9),
    transposed=st.booleans(),
)
def test_a_convolution_of_any_shape_is_exact(
    rows: int,
    channels: tuple[int, int, int],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
    place: int,
    transposed: bool,
) -> None:
    groups, each_in, each_out = channels
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    torch.manual_seed(1)
    layer = kind(
        groups * each_in,
        groups * each_out,
        kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
    ).double()
    inputs = random(rows, groups * each_in, *size)
    possible = strategies_of(layer, inputs)
    strategy = possible[place % len(possible)]

    compare(around(layer), inputs, strategy=strategy)
    compare(around(layer), inputs, torch.float32, strategy=strategy)


@EXAMPLES
@given(
    rows=st.integers(1, 9),
    places=st.lists(st.integers(1, 6), max_size=2),
    widths=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    persons=st.integers(1, 4),
    ghost=st.booleans(),
)
def test_a_linear_layer_of_any_shape_is_exact(
    rows: int, places: list[int], widths: tuple[int, int], persons: int, ghost: bool
) -> None:
    torch.manual_seed(1)
    layer = nn.Linear(*widths).double()
    inputs = random(rows, *places, widths[0])
    units = torch.randint(
        persons, (rows,), generator=torch.Generator().manual_seed(rows)
    )
    strategy = "ghost" if ghost else "instantiate"

    compare(around(layer), inputs)
    compare(around(layer), inputs, units=units, strategy=strategy)
    compare(around(layer), inputs, torch.float32, units=units, strategy=strategy)


@EXAMPLES
@given(
    rows=st.integers(1, 6),
    places=st.lists(st.integers(1, 7), max_size=2),
    tokens=st.integers(1, 5),
    padding=st.booleans(),
    strided=st.booleans(),
)
def test_an_embedding_of_any_shape_is_exact(
    rows: int, places: list[int], tokens: int, padding: bool, strided: bool
) -> None:
    torch.manual_seed(1)
    layer = nn.Embedding(tokens, 3, padding_idx=0 if padding else None).double()
    with torch.no_grad():
        layer.weight.copy_(random(tokens, 3))
    generator = torch.Generator().manual_seed(tokens)
    ids = torch.randint(tokens, (rows, *places), generator=generator)
    if strided:
        ids = ids[:1].expand(rows, *places)

    compare(around(layer), ids)
    compare(around(layer), ids, torch.float32, units=torch.arange(rows) // 2)
