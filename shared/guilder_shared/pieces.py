"""Flower's objects on their way: long arrays in pieces, copied once and no more.

An object is a head, which ends with a zero byte, and a body; its name is the SHA-256 of
both. Here bodies of arrays are views of one long buffer, in which they lie end to end:
cut when an array leaves, put together when it has come. This module decodes no update
and believes nothing that a message says of its sender.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from guilder_shared import strange_json

PIECE_BYTES: Final = 5 << 20  # as Flower cuts arrays
LONGEST_HEAD: Final = 64  # bytes of a piece's head: a word and a length
KIND: Final = "ArrayChunk"


@dataclass(frozen=True, eq=False)
class Piece:
    """One piece of an array as an object: its head, and where its body lies.

    Attributes:
        head: With the zero byte at its end.
        memory: Of the whole array, or of this piece alone.
        start: Where in it the body begins.
        stop: And where it ends.
    """

    head: bytes
    memory: memoryview
    start: int
    stop: int

    def __len__(self) -> int:
        return len(self.head) + self.stop - self.start

    @property
    def body(self) -> memoryview:
        """The body, where it lies."""
        return self.memory[self.start : self.stop]

    def object_id(self) -> str:
        """The object's name, counted from its bytes."""
        counted = hashlib.sha256(self.head)
        counted.update(self.body)
        return counted.hexdigest()


Content = bytes | Piece
Contents = dict[str, Content]


def room(num_bytes: int) -> memoryview:
    """So much memory, not set to anything; a long one in large pages, where there are.

    The same on every system, and faster than a bytearray's where fresh pages are slow.
    """
    return np.empty(num_bytes, np.uint8).data


class Cut(ArrayChunk):
    """A piece that leaves: Flower's own, but its name is counted once and in place."""

    def __init__(self, piece: Piece) -> None:
        super().__init__(piece.body)
        self.piece = piece
        self._name = piece.object_id()

    @property
    def object_id(self) -> str:
        """The SHA-256 of what `deflate` gives."""
        return self._name

    def deflate(self) -> bytes:
        """Head and body, as one copy."""
        return b"".join((self.piece.head, self.piece.body))


def array_of(parts: Sequence[bytes | bytearray | memoryview]) -> Array:
    """An array of the bytes in `parts`, as `numpy.save` would write it.

    Args:
        parts: NumPy's header first. All are copied, once, into one buffer.
    """
    memory, place = room(sum(map(len, parts))), 0
    for part in parts:
        memory[place : place + len(part)] = part
        place += len(part)
    array = Array("uint8", (place - len(parts[0]),), "numpy.ndarray", b"")
    whole = memory.toreadonly()
    array.data = whole  # type: ignore[assignment]
    array.__dict__["_chunks"] = [(cut.object_id, cut) for cut in map(Cut, cuts(whole))]
    return array


def cuts(memory: memoryview) -> Iterable[Piece]:
    """The pieces of a long buffer, in order."""
    for start in range(0, len(memory), PIECE_BYTES):
        stop = min(start + PIECE_BYTES, len(memory))
        yield Piece(_head_of(stop - start), memory, start, stop)


class Landing:
    """Memory for pieces that come in, one behind the other; made when the first comes.

    Args:
        num_bytes: Of all bodies together, as it was announced; what goes beyond lies
            elsewhere. Twice at once it may be asked for by several threads.
    """

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._memory: memoryview | None = None
        self._used = 0
        self._lock = threading.Lock()

    def place(self, num_bytes: int) -> tuple[memoryview, int]:
        """Room for one body: a buffer, and where in it it begins."""
        with self._lock:
            if self._used + num_bytes > self._num_bytes:
                return room(num_bytes), 0
            if self._memory is None:
                self._memory = room(self._num_bytes)
            start, self._used = self._used, self._used + num_bytes
            return self._memory, start

    def give_back(self, piece: Piece) -> None:
        """Have the last body's room again: it did not come, or is another."""
        with self._lock:
            if piece.memory is self._memory and piece.stop == self._used:
                self._used = piece.start

    def put(self, parts: Sequence[memoryview]) -> Content:
        """An object that came in `parts`: a piece is landed, any other is joined.

        Raises:
            ValueError: It is no object, or a piece of another length than it says.
        """
        first = b"".join(part[:LONGEST_HEAD] for part in parts[:LONGEST_HEAD])
        head = piece_head(first[:LONGEST_HEAD])
        if not head:
            return b"".join(parts)
        num_bytes = sum(map(len, parts)) - len(head)
        if head != _head_of(num_bytes):
            raise ValueError("a piece of another length than its head says")
        memory, start = self.place(num_bytes)
        place, skip = start, len(head)
        for part in parts:
            rest = part[skip:]
            skip -= len(part) - len(rest)
            memory[place : place + len(rest)] = rest
            place += len(rest)
        return Piece(head, memory, start, place)


def piece_head(start: bytes) -> bytes:
    """The head of the piece that begins with `start`; empty if it is none."""
    end = start.find(b"\0", 0, LONGEST_HEAD) + 1
    return start[:end] if start.startswith(f"{KIND} ".encode()) else b""


def opened(root_id: str, contents: Contents, most_bytes: int) -> Message:
    """The message `root_id`; its arrays' data are views. `contents` is used up.

    Flower joins an array's pieces by way of three copies and believes whatever list of
    pieces it is given. Here pieces that lie end to end are taken as they lie, others
    are let go of as they are joined, and arrays are never longer than they may be.

    Raises:
        ValueError, KeyError, TypeError: An object is none, one is missing, the root is
            no message, or its arrays are longer than `most_bytes` together.
    """
    joined: dict[bytes, memoryview] = {}
    stands: dict[str, Any] = {}  # arrays that have their id where their numbers will be
    small = {n: c for n, c in contents.items() if isinstance(c, bytes)}
    tables = {
        array_id: strange_json.read(get_object_body(content, Array))
        for array_id, content in small.items()
        if _head(content)[0] == "Array"
    }
    pieces = {
        array_id: [_head(small[array_id])[1][n] for n in told["arraychunk_ids"]]
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
    contents.clear()
    message = inflate_object_from_contents(root_id, small, objects=stands)
    if not isinstance(message, Message):
        raise TypeError
    if message.has_content():
        for record in message.content.values():
            for array in record.values() if isinstance(record, ArrayRecord) else ():
                if isinstance(array.data, bytes):  # equal arrays are one object
                    array.data = joined[array.data]  # type: ignore[assignment]
    return message


def _joined(
    contents: Contents, places: list[str], left: Counter[str], most_bytes: int
) -> memoryview:
    """The pieces of one array; those that no place needs any more are let go of."""
    bodies = [_piece(contents[name]) for name in places]
    num_bytes = sum(piece.stop - piece.start for piece in bodies)
    if num_bytes > most_bytes:
        raise ValueError("an array longer than its reply may be")
    if (whole := _end_to_end(bodies)) is not None:
        return whole
    joined, start = room(num_bytes), 0
    for name in places:
        body = bodies.pop(0).body
        joined[start : start + len(body)] = body
        start += len(body)
        left[name] -= 1
        if not left[name]:
            del contents[name]
    return joined.toreadonly()


def _end_to_end(bodies: list[Piece]) -> memoryview | None:
    """The memory of bodies that follow upon each other; None where they do not."""
    if not bodies:
        return memoryview(b"")
    memory, place = bodies[0].memory, bodies[0].start
    for piece in bodies:
        if piece.memory is not memory or piece.start != place:
            return None
        place = piece.stop
    return memory[bodies[0].start : place].toreadonly()


def _piece(content: Content) -> Piece:
    if isinstance(content, Piece):
        return content
    kind, _ = _head(content)
    if kind != KIND:
        raise ValueError("a piece that is none")
    start = content.index(b"\0") + 1
    return Piece(content[:start], memoryview(content), start, len(content))


def _head_of(num_bytes: int) -> bytes:
    return f"{KIND}  {num_bytes}\0".encode()


def _head(content: bytes) -> tuple[str, list[str]]:
    """Type and children of an object; its head ends with the first zero byte."""
    head = content[: content.index(b"\0") + 1]
    kind, children, _ = get_object_head_values_from_object_content(head)
    return kind, children
