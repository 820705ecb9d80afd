"""What the process asks of the C library about memory.

Models travel in pieces of 5 MiB. glibc begins to keep such pieces for itself once one
was freed, and what it keeps between two models is never given back: with the limit
fixed, each large piece is the system's again as soon as it is free. This module knows
nothing of models.
"""

import contextlib
import ctypes
from typing import Final

LARGE_BYTES: Final = 1 << 20
_MMAP_THRESHOLD: Final = -3  # M_MMAP_THRESHOLD of <malloc.h>


def give_back_large_pieces() -> None:
    """From now on freed blocks of 1 MiB and more leave the process at once.

    Nothing happens where the C library has no such setting.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
