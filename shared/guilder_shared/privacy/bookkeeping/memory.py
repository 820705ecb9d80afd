"""Memory that ran out: told apart from every other error.

This module frees nothing and computes nothing.

Review, mathematics: what follows from it is the height of passes, which may depend on
the machine and on public shapes; it never looks at a row.
Review, crash order: in memory only.
"""

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
