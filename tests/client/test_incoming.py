"""What has come of a message: kept by its name, and worth nothing under another."""

from pathlib import Path

import numpy as np
import pytest

from guilder_client.incoming import Incoming
from guilder_shared import pieces
from guilder_shared.pieces import Contents, Landing, Piece


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def model(num_pieces: int) -> dict[str, bytes]:
    """Objects of an array, by name."""
    data = np.random.default_rng(1).bytes(num_pieces * pieces.PIECE_BYTES)
    array = pieces.array_of([b"", data])
    return {name: cut.deflate() for name, cut in array.slice_array()}


def come(incoming: Incoming, objects: dict[str, bytes]) -> None:
    for name, content in objects.items():
        piece = incoming.landing.put([memoryview(content)])
        assert isinstance(piece, Piece)
        incoming.put(name, piece)


def as_bytes(found: Contents) -> dict[str, bytes]:
    return {
        name: bytes(each.head) + bytes(each.body)
        for name, each in found.items()
        if isinstance(each, Piece)
    }


def test_a_message_that_broke_off_goes_on_with_what_came() -> None:
    objects = model(2)
    first = dict(list(objects.items())[:1])
    incoming = Incoming(None)
    assert incoming.begin(objects, 20_000_000) == {}
    come(incoming, first)

    assert as_bytes(incoming.begin([*objects, "another"], 20_000_000)) == first


def test_another_message_begins_with_nothing_of_the_last() -> None:
    incoming = Incoming(None)
    incoming.begin(model(1), 10_000_000)
    come(incoming, model(1))

    assert incoming.begin(["another"], 10) == {}


def test_what_is_on_disk_is_there_for_a_client_that_was_started_anew(
    tmp_path: Path,
) -> None:
    objects, folder = model(2), tmp_path / "incoming"
    incoming = Incoming(folder, slow_s=0)
    incoming.begin(objects, 20_000_000)
    come(incoming, objects)

    found = Incoming(folder).begin(objects, 20_000_000)

    assert as_bytes(found) == objects
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_message_that_comes_fast_is_not_written(tmp_path: Path) -> None:
    clock, folder = Clock(), tmp_path / "incoming"
    incoming = Incoming(folder, slow_s=10, clock=clock)
    objects = model(2)
    (one, other) = ({name: content} for name, content in objects.items())
    incoming.begin(objects, 20_000_000)
    clock.now = 9
    come(incoming, one)
    assert not folder.exists()

    clock.now = 10
    come(incoming, other)

    assert {path.name for path in folder.iterdir()} == set(objects)


@pytest.mark.parametrize("harm", ["spoilt", "cut", "long", "empty", "other"])
def test_a_file_that_is_not_what_its_name_says_is_fetched_again(
    tmp_path: Path, harm: str
) -> None:
    objects, folder = model(1), tmp_path / "incoming"
    incoming = Incoming(folder, slow_s=0)
    incoming.begin(objects, 10_000_000)
    come(incoming, objects)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(
        {
            "spoilt": whole[:-1] + bytes([whole[-1] ^ 1]),
            "cut": whole[:-1],
            "long": whole + b"x",
            "empty": b"",
            "other": b"no piece at all",
        }[harm]
    )

    assert Incoming(folder).begin(objects, 10_000_000) == {}
    assert list(folder.iterdir()) == []


def test_files_of_a_turn_go_with_it_and_those_of_others_at_the_next(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()
    (folder / "of-an-earlier-turn.part").write_bytes(b"x")
    incoming = Incoming(folder, slow_s=0)
    incoming.begin(model(1), 10_000_000)
    assert list(folder.iterdir()) == []
    come(incoming, model(1))
    incoming.whole()
    assert len(list(folder.iterdir())) == 1

    incoming.finished()

    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("x")
    incoming = Incoming(tmp_path / "file" / "incoming", slow_s=0)
    incoming.begin(model(1), 10_000_000)

    come(incoming, model(1))

    assert as_bytes(incoming.begin(model(1), 10_000_000)) == model(1)
    assert "not kept" in caplog.text


def test_more_than_was_announced_lands_elsewhere() -> None:
    incoming = Incoming(None)
    incoming.begin(model(2), 1000)
    come(incoming, model(2))

    assert as_bytes(incoming.begin(model(2), 1000)) == model(2)
    assert Landing(0).place(10)[1] == 0
