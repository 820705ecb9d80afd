"""Sampling, noise, clipping, accounting and the ledger: the promise, kept.

`make_private_step` is for models outside Guilder too; torch is loaded when it is first
asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guilder_shared.privacy.bookkeeping.step import make_private_step

__all__ = ["make_private_step"]


def __getattr__(name: str) -> Any:
    if name != "make_private_step":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from guilder_shared.privacy.bookkeeping.step import make_private_step

    return make_private_step
