"""A reply's objects back into one message, each array in one piece of memory.

Flower joins an array's pieces by way of three copies and believes whatever list of
pieces it is given. Here pieces are let go of as they are joined, and arrays are never
longer than the reply may be. This module believes nothing of what a reply says of its
sender and decodes no update.
"""

import json
from collections import Counter
from typing import Any

from flwr.app import Array, ArrayRecord, Message
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

Contents = dict[str, bytes]


def opened(root_id: str, contents: Contents, most_bytes: int) -> Message:
    """The message `root_id`; its arrays' data are bytearrays. `contents` is used up.

    Raises:
        ValueError, KeyError, TypeError: An object is none, one is missing, the root is
            no message, or its arrays are longer than `most_bytes` together.
    """
    joined: dict[bytes, bytearray] = {}
    stands: dict[str, Any] = {}  # arrays that have their id where their numbers will be
    kinds = {object_id: _head(content)[0] for object_id, content in contents.items()}
    tables = {
        array_id: json.loads(get_object_body(contents[array_id], Array))
        for array_id, kind in kinds.items()
        if kind == "Array"
    }
    pieces = {
        array_id: [_head(contents[array_id])[1][n] for n in told["arraychunk_ids"]]
        for array_id, told in tables.items()
    }
    left = Counter(piece for each in pieces.values() for piece in each)
    for array_id, told in tables.items():
        numbers = _joined(contents, pieces[array_id], left, most_bytes)
        most_bytes -= len(numbers)
        mark = array_id.encode()
        shape = tuple(told["shape"])
        joined[mark] = numbers
        stands[array_id] = Array(str(told["dtype"]), shape, str(told["stype"]), mark)
    message = inflate_object_from_contents(root_id, contents, objects=stands)
    if not isinstance(message, Message):
        raise TypeError
    if message.has_content():
        for record in message.content.values():
            for array in record.values() if isinstance(record, ArrayRecord) else ():
                array.data = joined[array.data]  # type: ignore[assignment]
    return message


def _joined(
    contents: Contents, places: list[str], left: Counter[str], most_bytes: int
) -> bytearray:
    """The pieces of one array; those that no place needs any more are let go of."""
    lengths = {piece: len(_body(contents[piece])) for piece in set(places)}
    num_bytes = sum(lengths[piece] for piece in places)
    if num_bytes > most_bytes:
        raise ValueError("an array longer than its reply may be")
    joined, start = bytearray(num_bytes), 0
    for piece in places:
        joined[start : start + lengths[piece]] = _body(contents[piece])
        start += lengths[piece]
        left[piece] -= 1
        if not left[piece]:
            del contents[piece]
    return joined


def _head(content: bytes) -> tuple[str, list[str]]:
    """Type and children of an object; its head ends with the first zero byte."""
    head = content[: content.index(b"\x00") + 1]
    kind, children, _ = get_object_head_values_from_object_content(head)
    return kind, children


def _body(content: bytes) -> memoryview:
    if _head(content)[0] != "ArrayChunk":
        raise ValueError("a piece that is none")
    return memoryview(content)[content.index(b"\x00") + 1 :]
