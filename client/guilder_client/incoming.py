"""What has come of a large message, so that a line that breaks costs one piece of it.

Pieces are kept by their SHA-256: in memory until the message is whole, and on a slow
line in files of this user alone too, until the turn's reply has left. A piece that is
found again is checked against its name. Only what the server sent is kept here, the
study's model: nothing that was computed from a row.

Review, mathematics: nothing here depends on a row.
Review, crash order: nothing here is needed. Killed at any moment, what is not found, or
is not what its name says, is fetched again.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from guilder_shared.durable import OWNER_ONLY
from guilder_shared.pieces import LONGEST_HEAD, Contents, Landing, Piece, piece_head

SLOW_S: Final = 10.0  # a message that takes longer is worth its writing
log = logging.getLogger("guilder.node")


class Incoming:
    """The pieces of the message that is being fetched.

    Args:
        folder: For the files; made when it is needed. None: nothing is written.
        slow_s: After so many seconds of one message its pieces are written.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        folder: Path | None,
        slow_s: float = SLOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._slow_s, self._clock = folder, slow_s, clock
        self._pieces: Contents = {}
        self._written: set[str] = set()
        self._began_s = clock()
        self.landing = Landing(0)

    def begin(self, object_ids: Iterable[str], num_bytes: int) -> Contents:
        """Begin with a message, or go on with it; returns what of it is here.

        Args:
            object_ids: Its objects.
            num_bytes: Of all of them together, as the server says.
        """
        wanted = dict.fromkeys(object_ids)
        self._pieces = {n: c for n, c in self._pieces.items() if n in wanted}
        if not self._pieces:
            self._began_s, self.landing = self._clock(), Landing(num_bytes)
            self._read(wanted)
        return dict(self._pieces)

    def put(self, object_id: str, piece: Piece) -> None:
        """Keep one piece, whose name was checked."""
        self._pieces[object_id] = piece
        if self._folder is None or self._clock() - self._began_s < self._slow_s:
            return
        for name, each in self._pieces.items():
            if name not in self._written and isinstance(each, Piece):
                self._write(name, each)

    def whole(self) -> None:
        """The message is whole: its pieces are somebody else's now."""
        self._pieces, self.landing = {}, Landing(0)

    def finished(self) -> None:
        """The turn is over: nothing of its request is needed again."""
        for name in self._names() if self._written else ():
            self._remove(name)

    def nothing_asked(self) -> None:
        """The server asks for nothing: a turn whose end a broken line hid is over."""
        if not self._pieces:  # else the rest of a message is still to come
            self.finished()

    def _write(self, name: str, piece: Piece) -> None:
        assert self._folder is not None
        self._written.add(name)
        part = self._folder / f"{name}.part"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            with open(os.open(part, flags, OWNER_ONLY), "wb") as file:
                file.write(piece.head)
                file.write(piece.body)
            part.replace(self._folder / name)
        except OSError as error:
            log.warning("a piece of a message is not kept: %s", error.strerror)
            with contextlib.suppress(OSError):
                part.unlink()

    def _read(self, wanted: Iterable[str]) -> None:
        """Take what lies on disk, in the message's order; remove whatever else does."""
        found = set(self._names())
        for name in (each for each in wanted if each in found):
            if (piece := self._piece(name)) is not None:
                self._pieces[name] = piece
        self._written = set(self._pieces)
        for name in found - self._written:
            self._remove(name)

    def _piece(self, name: str) -> Piece | None:
        assert self._folder is not None
        try:
            with (self._folder / name).open("rb") as file:
                head = piece_head(file.read(LONGEST_HEAD))
                num_bytes = os.fstat(file.fileno()).st_size - len(head)
                memory, start = self.landing.place(num_bytes)
                piece = Piece(head, memory, start, start + num_bytes)
                file.seek(len(head))
                if file.readinto(piece.body) == num_bytes and piece.object_id() == name:
                    return piece
        except OSError:
            return None
        self.landing.give_back(piece)
        return None

    def _names(self) -> list[str]:
        if self._folder is None:
            return []
        with contextlib.suppress(OSError):
            return sorted(os.listdir(self._folder))
        return []

    def _remove(self, name: str) -> None:
        assert self._folder is not None
        self._written.discard(name)
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()
