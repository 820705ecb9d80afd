"""Memory that runs out: smaller passes, one line in the log, the same sum."""

import logging
import os
import platform
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from guilder_shared.errors import DeviceError
from guilder_shared.privacy.bookkeeping.memory import ran_out
from guilder_shared.privacy.bookkeeping.step import PrivateStep, make_private_step

CHILD = """
import logging, resource, sys, torch
from torch import nn
from guilder_shared.privacy.bookkeeping.step import make_private_step

logging.basicConfig(stream=sys.stdout, format="%(message)s")
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 1))
inputs, targets = torch.randn(2048, 64), torch.ones(2048)

def losses(outputs, targets):
    return (outputs.squeeze(-1) - targets).square()

def total(height):
    step = make_private_step(
        model, losses, None, clip_norm=0.5, noise_multiplier=0.0, divisor=1.0,
        isolated=ISOLATED, microbatch=height, tune=False,
    )
    return step.clipped_sum(inputs, targets), step._height

wanted, _ = total(128)
with open("/proc/self/statm") as f:
    held = int(f.read().split()[0]) * resource.getpagesize()
more = 60 << 20  # 2048 rows of 4096 numbers take 32 MiB, several times
resource.setrlimit(resource.RLIMIT_AS, (held + more, resource.RLIM_INFINITY))
found, height = total(2048)
print("height", height, float((found - wanted).norm() / wanted.norm()))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.slow
@pytest.mark.parametrize("isolated", [False, True])
def test_a_process_with_too_little_memory_takes_smaller_passes(isolated: bool) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CHILD.replace("ISOLATED", str(isolated))],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    *said, last = ran.stdout.strip().splitlines()
    _, height, off = last.split()
    assert 1 < int(height) < 2048
    assert float(off) < 1e-6
    if not isolated:  # isolated, the trial on made-up rows finds it first
        assert all("out of memory with passes of" in line for line in said)
        assert said


class Hungry(nn.Module):
    """Asks for more memory than there is, above so many rows."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.linear = most, nn.Linear(4, 3)
        self.heights: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.heights.append(len(x))
        if len(x) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return self.linear(x)  # type: ignore[no-any-return]


def step_of(model: nn.Module, *, isolated: bool = False) -> PrivateStep:
    return make_private_step(
        model,
        lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none"),
        torch.optim.SGD(model.parameters(), lr=1.0),
        clip_norm=0.3,
        noise_multiplier=1.0,
        divisor=40.0,
        isolated=isolated,
        tune=False,
    )


@pytest.mark.parametrize("isolated", [False, True])
def test_the_height_halves_until_it_fits_and_stays_there(
    isolated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = Hungry(20)
    step = step_of(model, isolated=isolated)
    inputs, targets = torch.randn(50, 4), torch.randint(3, (50,))

    with caplog.at_level(logging.WARNING):
        step(inputs, targets)
        model.heights.clear()
        step(inputs, targets)

    assert max(model.heights) <= 20
    assert step.steps_taken == 2
    assert all("out of memory" in r.getMessage() for r in caplog.records)
    assert len(caplog.records) <= 3


def test_a_sum_that_was_begun_counts_nobody_twice() -> None:
    torch.manual_seed(0)
    model = Hungry(50)
    step, calm = step_of(model), step_of(model)
    step.microbatch = 32
    inputs, targets = torch.randn(50, 4), torch.randint(3, (50,))
    wanted = calm.clipped_sum(inputs, targets)
    calls = iter([True] * 2 + [True, False] + [True] * 100)  # checks, then two passes
    forward = model.forward

    def failing(x: Tensor) -> Tensor:
        if not next(calls):
            raise MemoryError
        return forward(x)

    model.forward = failing  # type: ignore[method-assign]

    found = step.clipped_sum(inputs, targets)

    assert step._height == 16
    assert found.numpy() == pytest.approx(wanted.numpy(), abs=1e-6)


def test_one_row_that_does_not_fit_is_said_in_words() -> None:
    model = Hungry(3)
    step = step_of(model)
    model.most = 0
    step._height = 1

    with pytest.raises(DeviceError) as caught:
        step.clipped_sum(torch.randn(5, 4), torch.randint(3, (5,)))

    assert caught.value.error_id == "GLD-G003"


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_what_is_lack_of_memory_is_taken_for_it(
    error: Exception, found: bool
) -> None:
    assert ran_out(error) == found


class Looking(torch.autograd.Function):
    """When gradients come by, only those of the tensors seen stay that still are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, held: list[weakref.ref[Any]]) -> Tensor:
        ctx.held = held
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        ctx.held[:] = [x for x in ctx.held if x() is not None]
        return grads[0], None


class Deep(nn.Module):
    """A layer, then norms whose inputs nothing needs once they gave their gradient."""

    def __init__(self, num: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3), nn.Linear(8, 3)
        self.norms = nn.ModuleList(nn.GroupNorm(4, 8) for _ in range(num))
        self.held: list[weakref.ref[Any]] = []

    def forward(self, x: Tensor) -> Tensor:
        x = Looking.apply(self.first(x), self.held)  # type: ignore[no-untyped-call]
        for norm in self.norms:
            x = x * 2.0
            if torch.is_grad_enabled():
                self.held.append(weakref.ref(x.untyped_storage()))
            x = torch.tanh(norm(x))
        return self.last(x.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("isolated", [False, True])
def test_what_a_layer_saw_is_free_once_its_gradient_is_there(isolated: bool) -> None:
    torch.manual_seed(0)
    model = Deep(6)
    step = step_of(model, isolated=isolated)
    step.prepare(torch.randn(5, 1, 9, 9), torch.randint(3, (5,)))
    model.held.clear()

    step.clipped_sum(torch.randn(5, 1, 9, 9), torch.randint(3, (5,)))

    assert model.held == []


FAULTS = """
import resource, torch
from torch import nn
from guilder_shared.privacy import make_private_step

torch.set_num_threads(1)
layers = [layer for _ in range(16) for layer in (nn.Linear(256, 256), nn.Tanh())]
model = nn.Sequential(*layers, nn.Linear(256, 2))
rows, goals = torch.randn(1024, 256), torch.zeros(1024, dtype=torch.int64)
losses = nn.CrossEntropyLoss(reduction="none")
step = make_private_step(
    model, losses, torch.optim.SGD(model.parameters(), lr=0.1),
    clip_norm=1.0, noise_multiplier=0.0, divisor=64.0,
)
for number in range(12):
    if number == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(rows, goals)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow(minutes=0.2)
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own settings")
def test_a_step_computes_in_the_memory_of_the_step_before() -> None:
    def fresh_pages(**settings: str) -> int:
        unset = {n: v for n, v in os.environ.items() if not n.startswith("MALLOC_")}
        done = subprocess.run(
            [sys.executable, "-c", FAULTS],
            env={**unset, **settings},
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    # 130 MB of activations and products in eight steps: 32,000 pages
    assert fresh_pages() < 8_000
    assert fresh_pages(MALLOC_TRIM_THRESHOLD_="131072") > 16_000  # the user's own
