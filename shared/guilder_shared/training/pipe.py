"""What passes between a site's process and its workers: numbers, and words as JSON.

One message is a line of JSON and a piece of memory without a name, handed over as an
open file: arrays are not copied through a socket, lie on no disk and are gone with the
last process that holds them. This module starts no process and trains nothing.

Review, mathematics: nothing here changes a number.
Review, crash order: in memory only; nothing outlives the processes.
"""

import json
import mmap
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

_ALIGNED = 64  # bytes
_LENGTH = 8


@dataclass(frozen=True)
class Message:
    """Words and arrays.

    Attributes:
        words: JSON.
        arrays: By name; read-only on the side that receives.
    """

    words: Mapping[str, Any]
    arrays: Arrays


def send(to: socket.socket, message: Message) -> None:
    """Hand over a message.

    Args:
        to: One end of a socket pair of this machine.
        message: Whose arrays are of numbers.

    Raises:
        OSError: The other side is gone.
    """
    places, size = _places(message.arrays)
    memory = os.memfd_create("guilder-rows", os.MFD_CLOEXEC)
    try:
        os.truncate(memory, max(1, size))
        with mmap.mmap(memory, max(1, size)) as room:
            for name, place in places.items():
                array = np.ascontiguousarray(message.arrays[name])
                start = place["start"]
                room[start : start + array.nbytes] = array.tobytes()
        words = json.dumps({"words": message.words, "arrays": places}).encode()
        length = len(words).to_bytes(_LENGTH, "big")
        socket.send_fds(to, [length], [memory])
        to.sendall(words)
    finally:
        os.close(memory)


def receive(source: socket.socket) -> Message | None:
    """The next message, waited for; None where the other side is gone.

    Raises:
        OSError: The other side went in the middle of a message.
    """
    length, files, _, _ = socket.recv_fds(source, _LENGTH, 1)
    if not length:
        return None
    told = json.loads(_exactly(source, int.from_bytes(length, "big")))
    try:
        room = mmap.mmap(files[0], 0, access=mmap.ACCESS_READ)
    finally:
        os.close(files[0])
    return Message(
        told["words"],
        {name: _array(room, place) for name, place in told["arrays"].items()},
    )


def _places(arrays: Arrays) -> tuple[dict[str, Any], int]:
    """Where each array lies, and how many bytes all of them take."""
    places: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        places[name] = {
            "start": end,
            "dtype": array.dtype.str,
            "shape": list(array.shape),
        }
        end += -(-array.nbytes // _ALIGNED) * _ALIGNED
    return places, end


def _array(room: mmap.mmap, place: Mapping[str, Any]) -> NDArray[Any]:
    shape, dtype = place["shape"], np.dtype(place["dtype"])
    num = int(np.prod(shape))
    found: NDArray[Any] = np.frombuffer(room, dtype, num, place["start"])
    return found.reshape(shape)


def _exactly(source: socket.socket, num: int) -> bytes:
    parts = []
    while num:
        part = source.recv(min(num, 1 << 20))
        if not part:
            raise ConnectionError("the other side is gone")
        parts.append(part)
        num -= len(part)
    return b"".join(parts)
