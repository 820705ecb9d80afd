"""Updates as bytes: whole, or a quarter of it as 8-bit integers.

`int8`: parameters in the order of their names make one vector; every 256 coordinates
share one scale, the largest magnitude among them / 127, and each is rounded to the
nearest multiple. Rounding is deterministic, so the same update gives the same bytes.
This module knows no study and no network.

Review, mathematics: what is compressed is noised already, and scales are read off it:
post-processing, whatever the rounding. It moves a coordinate by at most 1/254 of the
largest in its block; where noise dominates, by under 1 % of the noise's deviation.
Review, crash order: pure; what is sealed and sent are these bytes.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np

from guilder_shared.errors import IntegrityError
from guilder_shared.messages import Weights, pack, unpack
from guilder_shared.tensors import Buffer

BLOCK: Final = 256  # coordinates that share a scale: 4 bytes in 256 are 1.6 %
LARGEST: Final = 127
_SLACK_BYTES: Final = 1000  # a safetensors header of two tensors

Compression = Literal["int8"] | None
Shapes = Mapping[str, tuple[int, ...]]


def pack_update(update: Weights, compression: Compression) -> bytes:
    """An update as bytes; the same update gives the same bytes.

    A block that holds a number that is not finite gets a scale that is none, which
    the reader refuses: nothing is raised here, whatever the data did.
    """
    from safetensors.numpy import save

    if compression is None:
        return pack(update)
    size = sum(w.size for w in update.values())
    padded = np.zeros(-(-size // BLOCK) * BLOCK, np.float32)
    start = 0
    for name in sorted(update):
        padded[start : start + update[name].size] = update[name].reshape(-1)
        start += update[name].size
    blocks = padded.reshape(-1, BLOCK)
    with np.errstate(invalid="ignore"):
        scales = np.abs(blocks).max(axis=1) / np.float32(LARGEST)
        steps = np.where(scales > 0, scales, np.float32(1))[:, None]
        whole = np.nan_to_num(np.rint(blocks / steps), posinf=0, neginf=0)
    numbers = np.clip(whole, -LARGEST, LARGEST).astype(np.int8).reshape(-1)[:size]
    return save({"numbers": numbers, "scales": scales})


def unpack_update(data: Buffer, shapes: Shapes, compression: Compression) -> Weights:
    """An update from bytes, checked against what the study defines.

    Raises:
        IntegrityError: GLD-I040 to GLD-I042 as `messages.unpack`; also a scale that is
            not finite or is negative.
    """
    if compression is None:
        return unpack(data, shapes)
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    numbers, scales = _parts(data, size)
    if not np.isfinite(scales).all() or (scales < 0).any():
        raise IntegrityError("GLD-I042", "a scale of the update is not finite")
    update: Weights = {}
    start = 0
    for name in sorted(shapes):
        end = start + int(np.prod(shapes[name]))
        first = start // BLOCK
        steps = np.repeat(scales[first : -(-end // BLOCK)], BLOCK)
        part = steps[start - first * BLOCK : end - first * BLOCK]
        update[name] = (numbers[start:end] * part).reshape(shapes[name])
        start = end
    return {name: update[name] for name in shapes}


def _parts(data: Buffer, size: int) -> tuple[Any, Any]:
    """Integers and scales; whatever is not exactly these two is refused."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    num_blocks = -(-size // BLOCK)
    largest = size + 4 * num_blocks + _SLACK_BYTES
    if len(data) > largest:
        raise IntegrityError(
            "GLD-I040", f"update of {len(data)} bytes, at most {largest} expected"
        )
    try:
        found = load(bytes(data))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError("GLD-I040", "update is not safetensors") from error
    wanted = {"numbers": (np.int8, (size,)), "scales": (np.float32, (num_blocks,))}
    if {n: (a.dtype.type, a.shape) for n, a in found.items()} != wanted:
        raise IntegrityError("GLD-I041", "update is not the study's in 8-bit integers")
    return found["numbers"], found["scales"]
