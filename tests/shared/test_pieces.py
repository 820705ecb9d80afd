"""Flower's objects without its copies: the same bytes, and nothing believed."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from guilder_shared import pieces, wire
from guilder_shared.pieces import Landing, Piece

LONG = 2 * pieces.PIECE_BYTES + 12_345


def numbers(num_bytes: int) -> bytes:
    return np.random.default_rng(3).bytes(num_bytes)


def message_of(
    record: ArrayRecord, **more: ArrayRecord
) -> tuple[str, dict[str, bytes]]:
    """A message's name and its objects."""
    said = ConfigRecord({"word": "x"})
    metadata = Metadata(1, "", 1, 2, "", "1", 0.0, 60.0, "train", 1)
    content = RecordDict({wire.FIELDS: said, wire.MODEL: record, **more})
    message = make_message(metadata, content=content)
    nested = get_all_nested_objects(message)
    return message.object_id, {name: each.deflate() for name, each in nested.items()}


def test_a_piece_is_as_long_as_flowers() -> None:
    assert pieces.PIECE_BYTES == FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE


@pytest.mark.parametrize("num_bytes", [0, 1, 1000, LONG])
def test_an_array_in_pieces_has_flowers_bytes_and_names(num_bytes: int) -> None:
    data = numbers(num_bytes)
    own = wire.model_record(data)["bytes"]
    flowers = Array(np.frombuffer(data, np.uint8))

    assert bytes(own.data) == flowers.data
    assert own.object_id == flowers.object_id
    assert own.deflate() == flowers.deflate()
    assert [name for name, _ in own.slice_array()] == list(flowers.children)
    for (_, mine), theirs in zip(
        own.slice_array(), flowers.children.values(), strict=True
    ):
        assert mine.deflate() == theirs.deflate()


def landed(contents: dict[str, bytes], num_bytes: int) -> pieces.Contents:
    landing = Landing(num_bytes)
    found: pieces.Contents = {}
    for name, content in contents.items():
        half = len(content) // 2
        found[name] = landing.put(
            [memoryview(content)[:half], memoryview(content)[half:]]
        )
    return found


def test_pieces_that_land_end_to_end_are_opened_where_they_lie() -> None:
    data = numbers(LONG)
    root, objects = message_of(wire.model_record(data))
    found = landed(objects, LONG + 1000)
    first = next(each for each in found.values() if isinstance(each, Piece))

    opened = pieces.opened(root, found, LONG + 1000)

    array: Any = opened.content.array_records[wire.MODEL]["bytes"]
    assert array.data.obj is first.memory.obj  # no copy
    assert bytes(wire._model_bytes(opened.content)) == data


@pytest.mark.parametrize("num_bytes", [0, 6_000_000])
def test_pieces_that_lie_apart_are_joined(num_bytes: int) -> None:
    data = numbers(LONG)
    root, objects = message_of(wire.model_record(data))
    found = landed(objects, num_bytes)

    opened = pieces.opened(root, found, LONG + 1000)

    assert bytes(wire._model_bytes(opened.content)) == data


def test_a_piece_named_twice_is_there_twice() -> None:
    data = bytes(2 * pieces.PIECE_BYTES)
    array = Array("uint8", (len(data),), "numpy.ndarray", data)
    root, objects = message_of(ArrayRecord({"bytes": array}))
    found = landed(objects, LONG)

    opened = pieces.opened(root, found, LONG)

    assert bytes(opened.content.array_records[wire.MODEL]["bytes"].data) == data


def test_an_array_longer_than_it_may_be_is_not_joined() -> None:
    root, objects = message_of(wire.model_record(numbers(LONG)))
    found = landed(objects, LONG + 1000)

    with pytest.raises(ValueError, match="longer"):
        pieces.opened(root, found, LONG)


def test_room_that_was_not_needed_is_had_again() -> None:
    landing = Landing(10)
    first = landing.put([memoryview(b"ArrayChunk  4\0abcd")])
    second = landing.put([memoryview(b"ArrayChunk  6\0efghij")])
    assert isinstance(first, Piece)
    assert isinstance(second, Piece)

    landing.give_back(first)  # not the last: it stays
    landing.give_back(second)
    third = landing.put([memoryview(b"ArrayChunk  6\0klmnop")])

    assert isinstance(third, Piece)
    assert bytes(third.memory) == b"abcdklmnop"


@pytest.mark.parametrize(
    "content", [b"ArrayChunk  5\0abcd", b"ArrayChunk  3\0abcd", b"ArrayChunk  04\0abcd"]
)
def test_a_piece_of_another_length_than_it_says_does_not_land(content: bytes) -> None:
    with pytest.raises(ValueError, match="length"):
        Landing(100).put([memoryview(content)])


def test_what_is_no_piece_is_joined_and_left_to_flower() -> None:
    for content in (b"", b"ConfigRecord  2\0{}", b"ArrayChunk" * 100):
        parts = [memoryview(content)[:3], memoryview(content)[3:]]

        assert Landing(100).put(parts) == content


def test_a_landed_piece_has_the_name_of_its_bytes() -> None:
    chunk = ArrayChunk(memoryview(b"abc"))
    content = chunk.deflate()

    piece = Landing(3).put([memoryview(content[:1]), memoryview(content[1:])])

    assert isinstance(piece, Piece)
    assert piece.object_id() == chunk.object_id
    assert len(piece) == len(content)


@pytest.mark.parametrize("num_bytes", [1000, LONG])
def test_two_records_with_the_same_bytes_are_opened(num_bytes: int) -> None:
    """In a first round a model of zeros goes out with a control variate of zeros."""
    data = numbers(num_bytes)
    both = {wire.CONTROL: wire.model_record(data)}
    name, contents = message_of(wire.model_record(data), **both)

    message = pieces.opened(name, landed(contents, num_bytes), 2 * num_bytes + 1000)

    for record in (wire.MODEL, wire.CONTROL):
        found = message.content.array_records[record]["bytes"]
        assert bytes(found.data).endswith(data)
