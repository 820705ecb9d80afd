"""JSON nested too deep for Python's reader: an error, and no end of a process."""

from collections.abc import Callable
from typing import Any

import pytest

from guilder_shared import pieces, tensors, witnessing

DEPTH = 3000
DEEP = b"[" * DEPTH
ID = "a" * 64


def as_array(data: bytes) -> bytes:
    return b"Array  " + str(len(data)).encode() + b"\0" + data


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (witnessing.read, DEEP),
        (tensors.views, DEPTH.to_bytes(8, "little") + DEEP),
        (lambda data: pieces.opened(ID, {ID: data}, 1000), as_array(DEEP)),
    ],
)
def test_it_is_refused_as_no_such_answer(
    read: Callable[[Any], Any], data: bytes
) -> None:
    with pytest.raises(ValueError, match="too deep"):
        read(data)
