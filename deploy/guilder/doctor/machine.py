"""This machine: room on disk and in memory, the GPU and its driver, the C library.

It reads what the system says of itself, and writes one small file into the state folder
to see whether that can be done. torch is not loaded.
"""

import contextlib
import os
import platform
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from guilder.doctor.finding import Finding, fine, skipped, warning, wrong

GIB: Final = 1 << 30
PROBE_BYTES: Final = 1 << 20
MEMINFO: Final = Path("/proc/meminfo")
GROUPS: Final = Path("/sys/fs/cgroup")
LITTLE_DISK, LOW_DISK = GIB, 5 * GIB
LITTLE_MEMORY, LOW_MEMORY = GIB, 3 * GIB
# CUDA's major version: the oldest Linux driver that runs it (NVIDIA's release notes).
OLDEST_DRIVER: Final = {11: (450, 80), 12: (525, 60), 13: (580, 65)}


def check(folder: Path, *, device: str = "cpu") -> Iterator[Finding]:
    """Disk, memory, GPU and C library.

    Args:
        folder: Where ledger or runs are kept.
        device: As `[speed] device` asks.
    """
    yield disk(folder)
    yield memory()
    yield gpu(device)
    yield c_library()


def disk(folder: Path) -> Finding:
    """Whether the state folder can be written, and how much room it has."""
    there = folder
    while not there.exists():
        there = there.parent
    probe = there / f".guilder-check-{secrets.token_hex(4)}"
    try:
        descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            data = bytes(PROBE_BYTES)
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return wrong(
            "machine",
            "GLD-M002",
            f"{there} cannot be written: {error.strerror}",
            why="The disk is full or read-only, a quota is reached, or the folder is "
            "another user's.",
            fix="Make room or give permission; nothing can be charged without.",
            exit_code=2,
        )
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    free = shutil.disk_usage(there).free
    told = f"disk: {free / GIB:.1f} GiB free at {there}"
    why = "The ledger, sealed replies and runs grow; a full disk stops every turn."
    fix = "Make room, or name another folder in the file."
    if free < LITTLE_DISK:
        return wrong("machine", "GLD-M001", told, why=why, fix=fix, exit_code=2)
    if free < LOW_DISK:
        return warning("machine", "GLD-M001", told, why=why, fix=fix)
    return fine("machine", told)


def memory(meminfo: Path = MEMINFO, groups: Path = GROUPS) -> Finding:
    """How much memory is left, as the system and its limits say."""
    free = free_memory(meminfo, groups)
    if free is None:
        return skipped("machine", "memory: this system does not say")
    told = f"memory: {free / GIB:.1f} GiB available"
    why = "torch and one study's model and rows take about 1 GiB and more."
    fix = "Stop other programs, raise the service's limit, or use a larger machine."
    if free < LITTLE_MEMORY:
        return wrong("machine", "GLD-M003", told, why=why, fix=fix, exit_code=2)
    if free < LOW_MEMORY:
        return warning("machine", "GLD-M003", told, why=why, fix=fix)
    return fine("machine", told)


def free_memory(meminfo: Path = MEMINFO, groups: Path = GROUPS) -> int | None:
    """Bytes that may still be taken; None where the system does not say.

    What a limit counts as used holds files that were read: the kernel gives those up
    when memory is asked for, so what is inactive of them counts as free.
    """
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.M)
    except OSError:
        return None
    free = int(found[1]) * 1024 if found else None
    for limit, used, parts in (
        ("memory.max", "memory.current", "memory.stat"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
        ),
    ):
        with contextlib.suppress(OSError, ValueError):
            left = int((groups / limit).read_text()) - int((groups / used).read_text())
            left += _files_in_memory(groups / parts)
            free = left if free is None else min(free, left)
    return free


def _files_in_memory(statistics: Path) -> int:
    try:
        text = statistics.read_text()
    except OSError:
        return 0
    found = re.search(r"^(?:total_)?inactive_file (\d+)$", text, re.M)
    return int(found[1]) if found else 0


def gpu(device: str) -> Finding:
    """Whether there is a GPU, and torch and its driver fit it and each other."""
    cards = _cards()
    built = _cuda_of_torch()
    if not cards:
        if device == "cuda":
            return wrong(
                "machine", "GLD-G002", "no GPU here, and [speed] device asks for one",
                why="No card, or no driver (`nvidia-smi` finds none).",
                fix='Install the driver, or device = "cpu".',
                exit_code=2,
            )  # fmt: skip
        return fine("machine", "GPU: none; studies train on the processor")
    name, driver = cards[0]
    told = f"GPU: {len(cards)} x {name}, driver {driver}"
    if built is None:
        fix = "Install torch's build for CUDA; until then the processor does the work."
        why = "The installed torch is the build for the processor alone."
        if device == "cuda":
            return wrong("machine", "GLD-M004", told, why=why, fix=fix, exit_code=2)
        return warning("machine", "GLD-M004", told, why=why, fix=fix)
    oldest = OLDEST_DRIVER.get(int(built.split(".")[0]))
    numbers = tuple(int(part) for part in re.findall(r"\d+", driver)[:2])
    if oldest is not None and numbers < oldest:
        return wrong(
            "machine",
            "GLD-M005",
            f"{told}; torch is built for CUDA {built}",
            why=f"CUDA {built} needs driver {oldest[0]}.{oldest[1]} or newer.",
            fix="Update the driver, or install torch's build for an older CUDA.",
            exit_code=2,
        )
    return fine("machine", f"{told}; torch is built for CUDA {built}")


def c_library() -> Finding:
    """Whether glibc is as new as the installed wheels demand."""
    kind, found = platform.libc_ver()
    needed = glibc_needed()
    if kind != "glibc":
        return wrong(
            "machine", "GLD-M006", f"the C library is {kind or 'unknown'}, not glibc",
            why="The wheels of torch and others are built for glibc.",
            fix="Use a distribution with glibc, such as Debian, Ubuntu or RHEL.",
            exit_code=2,
        )  # fmt: skip
    here = _numbers(found)
    if here < needed:
        return wrong(
            "machine",
            "GLD-M006",
            f"glibc {found} is older than the installed wheels need, "
            f"{needed[0]}.{needed[1]}",
            why="A wheel was installed that was built for a newer system.",
            fix="Update the operating system, or take wheels for this one.",
            exit_code=2,
        )
    return fine("machine", f"glibc {found}; the wheels need {needed[0]}.{needed[1]}")


def glibc_needed() -> tuple[int, int]:
    """The newest glibc that any installed wheel demands, by its tags."""
    newest = (2, 17)  # what manylinux2014 and older need at most
    for each in distributions():
        tags = each.read_text("WHEEL") or ""
        wanted = re.findall(r"manylinux_(\d+)_(\d+)", tags)
        if wanted:  # a wheel with several tags needs the oldest of them
            newest = max(newest, min((int(a), int(b)) for a, b in wanted))
    return newest


def _cards() -> list[tuple[str, str]]:
    """Name and driver of each card; empty without `nvidia-smi`."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = ["--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 - the system's own program, no shell
            [program, *asked], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    return [(row[0].strip(), row[1].strip()) for row in rows if len(row) == 2]


def _cuda_of_torch() -> str | None:
    """The CUDA that torch is built for, by its file; None for the processor alone."""
    try:
        spec = find_spec("torch")
    except (ImportError, PackageNotFoundError):
        return None
    if spec is None or spec.origin is None:
        return None
    with contextlib.suppress(OSError):
        text = (Path(spec.origin).parent / "version.py").read_text("utf-8")
        found = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.M)
        return None if found is None else found[1]
    return None


def _numbers(text: str) -> tuple[int, int]:
    parts = [int(part) for part in re.findall(r"\d+", text)[:2]]
    return (parts[0], parts[1]) if len(parts) == 2 else (0, 0)
