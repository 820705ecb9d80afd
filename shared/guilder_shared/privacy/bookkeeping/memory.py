"""What a step asks of the process's memory: to keep it, and to tell when it ran out.

This module computes nothing.

Review, mathematics: what follows from it is the height of passes, which may depend on
the machine and on public shapes; it never looks at a row.
Review, crash order: in memory only.
"""

import ctypes
import os
from functools import cache

_KEPT_BYTES = 1 << 28  # at the top of the heap, between two steps
_OWN_PAGES_BYTES = 1 << 25  # glibc's largest; pieces above are the system's when freed
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>

_SIGNS = (
    "allocate memory",  # torch's allocator on the CPU
    "out of memory",  # and on CUDA
    "bad_alloc",  # C++
    "bad allocation",
    "could not create a memory",  # oneDNN
)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory was not enough.

    Args:
        error: What torch or NumPy raised.
    """
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


@cache
def keep_freed() -> None:
    """Let the C library keep up to 256 MiB that a step has freed for the next step.

    It gives them back otherwise, and each of their pages costs two microseconds when
    it is used again. Once, for the whole process; nothing happens where the C library
    is not glibc, or its settings are the user's own (MALLOC_... or GLIBC_TUNABLES).
    """
    own = "GLIBC_TUNABLES" in os.environ or any(
        name.startswith("MALLOC_") for name in os.environ
    )
    mallopt = None if own else getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # one without the other would leave it at 128 KiB
        mallopt(_MMAP_THRESHOLD, _OWN_PAGES_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
