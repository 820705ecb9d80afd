"""Updates as bytes: whole, or a quarter of it as 8-bit integers.

`int8`: parameters in the order of their names make one vector; every 256 coordinates
share one scale, the largest magnitude among them / 127, and each is rounded to the
nearest multiple. Rounding is deterministic, so the same update gives the same bytes.
What a turn measured lies beside its update, whole. This module knows no study and no
network.

Review, mathematics: what is compressed is noised already, and scales are read off it:
post-processing, whatever the rounding. It moves a coordinate by at most 1/254 of the
largest in its block; where noise dominates, by under 1 % of the noise's deviation.
Review, crash order: pure; what is sealed and sent are these bytes.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from guilder_shared.errors import IntegrityError
from guilder_shared.messages import MEASURED_BESIDE, Weights, pack, unpack
from guilder_shared.tensors import Buffer

BLOCK: Final = 256  # coordinates that share a scale: 4 bytes in 256 are 1.6 %
LARGEST: Final = 127
_SLACK_BYTES: Final = 1000  # a safetensors header of three tensors

Compression = Literal["int8"] | None
Shapes = Mapping[str, tuple[int, ...]]
Vector = npt.NDArray[np.float32]


def pack_update(
    update: Weights, compression: Compression, measured: Vector | None = None
) -> bytes:
    """An update as bytes; the same update gives the same bytes.

    What the turn `measured` goes beside it and is not compressed.

    A block that holds a number that is not finite gets a scale that is none, which
    the reader refuses: nothing is raised here, whatever the data did.
    """
    from safetensors.numpy import save

    beside = {} if measured is None else {MEASURED_BESIDE: measured}
    if compression is None:
        return pack({**update, **beside})
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
    return save({"numbers": numbers, "scales": scales, **beside})


def unpack_update(
    data: Buffer, shapes: Shapes, compression: Compression, num_measured: int = 0
) -> Weights:
    """An update from bytes, checked against what the study defines.

    Args:
        data: As `pack_update` gives it.
        shapes: Of the model.
        compression: The study's.
        num_measured: Numbers that the turn measures; 0 where it measures none.

    Returns:
        The update; what was measured is among it, as `MEASURED_BESIDE`.

    Raises:
        IntegrityError: GLD-I040 to GLD-I042 as `messages.unpack`; also a scale that is
            not finite or is negative.
    """
    beside = {MEASURED_BESIDE: (num_measured,)} if num_measured else {}
    if compression is None:
        return unpack(data, {**shapes, **beside})
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    numbers, scales, measured = _parts(data, size, num_measured)
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
    return {name: update[name] for name in shapes} | measured


def _parts(data: Buffer, size: int, num_measured: int) -> tuple[Any, Any, Weights]:
    """Integers, scales and what was measured; whatever is not these is refused."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    num_blocks = -(-size // BLOCK)
    largest = size + 4 * (num_blocks + num_measured) + _SLACK_BYTES
    if len(data) > largest:
        raise IntegrityError(
            "GLD-I040", f"update of {len(data)} bytes, at most {largest} expected"
        )
    try:
        found = load(bytes(data))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError("GLD-I040", "update is not safetensors") from error
    wanted: dict[str, Any] = {"numbers": (np.int8, (size,))}
    wanted["scales"] = np.float32, (num_blocks,)
    if num_measured:
        wanted[MEASURED_BESIDE] = np.float32, (num_measured,)
    if {n: (a.dtype.type, a.shape) for n, a in found.items()} != wanted:
        raise IntegrityError("GLD-I041", "update is not the study's in 8-bit integers")
    numbers, scales = found.pop("numbers"), found.pop("scales")
    if not all(np.isfinite(measured).all() for measured in found.values()):
        raise IntegrityError("GLD-I042", "what was measured is not finite")
    return numbers, scales, found
