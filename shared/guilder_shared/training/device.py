"""Where a turn computes, in which numbers, and on how many threads.

A process computes in one way, so that the self-test of a study tries what its turns do.
This module trains nothing. torch is imported when first needed.

Review, mathematics: device and bfloat16 change how gradients are rounded, never how
they are clipped, summed or noised; a unit's contribution stays its own (`isolation`
tries it on the device and in the numbers that are used).
Review, crash order: in memory only.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from guilder_shared.errors import DeviceError
from guilder_shared.settings.files import Frozen

if TYPE_CHECKING:
    import torch

_lock = threading.Lock()
_inside = 0
_threads_before = 1
_repeating = 0
_repeated_before = (False, False, True)


class Speed(Frozen):
    """How fast a turn computes, never how private."""

    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="where turns compute; cuda has not been tried yet"
    )
    bfloat16: bool = Field(
        default=False, description="models compute in bfloat16; clipping stays exact"
    )
    deterministic: bool = Field(
        default=True, description="only kernels that give the same bytes again"
    )
    channels_last: bool = Field(
        default=False, description="images compute with their channels innermost"
    )
    checkpoint: bool = Field(
        default=False,
        description="compute activations again instead of keeping them: less memory",
    )
    devices: int = Field(
        default=1,
        ge=1,
        le=64,
        description="cards that share a turn, or processes on a processor; Linux",
    )
    prefetch: bool = Field(
        default=True, description="fetch the next rows while a pass computes"
    )


_speed = Speed()


def settle(speed: Speed) -> None:
    """Let this process compute in that way from now on.

    Raises:
        DeviceError: As `choose`.
    """
    global _speed  # noqa: PLW0603 - one way for a process, as torch's own settings
    if speed.device == "cuda" and speed.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA wakes
    choose(speed.device)
    _demand(speed)
    _speed = speed


def _demand(speed: Speed) -> None:
    """Refuse more devices than are here."""
    if speed.devices == 1:
        return
    if not hasattr(os, "memfd_create"):
        raise DeviceError(
            "GLD-G012",
            f"devices = {speed.devices} needs Linux.",
            why="Rows pass to other processes in memory without a name.",
            fix="Write devices = 1 under [speed] in site.toml.",
        )
    if speed.device == "cuda":
        import torch

        there = torch.cuda.device_count()
        if there < speed.devices:
            raise DeviceError(
                "GLD-G013",
                f"devices = {speed.devices}, and {there} are here.",
                fix=f"Write devices = {max(1, there)} under [speed] in site.toml.",
            )


def current() -> Speed:
    """The way in which this process computes."""
    return _speed


def dtype() -> "torch.dtype | None":
    """What models compute in, None for their own numbers."""
    import torch

    return torch.bfloat16 if _speed.bfloat16 else None


def choose(name: str = "cpu") -> str:
    """Check that this machine can train on the device that was asked for.

    On CUDA kernels are made to repeat themselves: no TF32, no search for the fastest.

    Raises:
        DeviceError: GLD-G001 the device is unknown, GLD-G002 it is not here.
    """
    if name not in {"cpu", "cuda"}:
        raise DeviceError(
            "GLD-G001",
            f"device {name!r} cannot train here.",
            why="This version trains on processors and on CUDA.",
            fix='Write device = "cpu" under [speed] in site.toml.',
        )
    if name == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise DeviceError(
                "GLD-G002",
                "device 'cuda' is not here, or its driver is not.",
                fix='Write device = "cpu" under [speed] in site.toml.',
            )
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return name


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that bytes do not depend on the number of cores.

    torch's setting belongs to the process: it is restored when the last of several
    turns leaves, and turns may run in several threads.
    """
    import torch

    global _inside, _threads_before  # noqa: PLW0603 - the setting is torch's own global
    with _lock:
        if _inside == 0:
            _threads_before = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                torch.set_num_threads(_threads_before)


@contextmanager
def turn() -> Iterator[None]:
    """Compute as a turn does: on one thread and, unless switched off, repeatably.

    With `deterministic` torch takes only kernels that give the same bytes again, and
    raises RuntimeError where it has none; the self-test meets that before any row is
    read. Afterwards torch is set as before. Written for CUDA as well, not run there.
    """
    with one_thread(), _repeatable() if _speed.deterministic else nullcontext():
        yield


@contextmanager
def _repeatable() -> Iterator[None]:
    import torch

    filling: Any = torch.utils.deterministic  # its setting is unknown to type checkers
    global _repeating, _repeated_before  # noqa: PLW0603 - as `one_thread`
    with _lock:
        if _repeating == 0:
            _repeated_before = (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
                filling.fill_uninitialized_memory,
            )
        _repeating += 1
        # torch.use_deterministic_algorithms, without the compiler that it imports
        torch._C._set_deterministic_algorithms(True, warn_only=False)
        # every number is written before it is read: filling would only cost time
        filling.fill_uninitialized_memory = False
    try:
        yield
    finally:
        with _lock:
            _repeating -= 1
            if _repeating == 0:
                on, warn, fill = _repeated_before
                torch._C._set_deterministic_algorithms(on, warn_only=warn)
                filling.fill_uninitialized_memory = fill
