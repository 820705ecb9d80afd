"""A site's control variates, as files: one for each turn that may still count.

Which of them a turn begins from is the server's to say, for it alone knows whose update
was folded: the variate of the turn that it last committed, or none. A file is bound to
its turn's sealed bytes by their SHA-256. This module computes nothing.

Crash order: a turn's variate is durable before its sealed bytes are, and those before
anything is sent. Killed between, the turn is trained again and both are written anew;
killed after, the same bytes are sent again and the variate lies there already.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from guilder_shared import durable
from guilder_shared.errors import IntegrityError
from guilder_shared.messages import Receipt, TurnRequest, Weights, pack, sha256, unpack

_DIGEST_BYTES: Final = 64  # the sealed bytes' SHA-256 in hexadecimal, first in the file
_ENDING: Final = "safetensors"
Shapes = Mapping[str, tuple[int, ...]]


class Variates:
    """The folder `variates/` of one site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def base(self, request: TurnRequest, shapes: Shapes) -> Weights:
        """The variate that a turn begins from: zeros, or that of an earlier turn.

        Raises:
            IntegrityError: GLD-I110 it is not here, or is of other bytes than the
                server committed. Nothing was charged.
        """
        if not request.control_base:
            return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        receipt, path = (
            request.receipt,
            self._path(request.grant_id, request.control_base),
        )
        data = path.read_bytes() if path.exists() else b""
        digest = data[:_DIGEST_BYTES].decode("ascii", "replace")
        wanted = Receipt(request.control_base, digest)
        if not data or receipt != wanted:
            raise IntegrityError(
                "GLD-I110",
                f"the control variate of turn {request.control_base} is not here, or "
                "is of another result than the server has",
                why="A turn from a wrong variate would pull the model astray.",
                fix="Restore the folder `variates` from a backup, or start a new run.",
            )
        return unpack(data[_DIGEST_BYTES:], shapes)

    def write(self, request: TurnRequest, sealed: bytes, variate: Weights) -> None:
        """Make a turn's variate durable; one of the same turn is replaced."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(request.grant_id, request.turn_no)
        data = sha256(sealed).encode() + pack(variate)
        durable.write(path, data, mode=durable.OWNER_ONLY)

    def settle(self, request: TurnRequest) -> None:
        """Remove what no later turn can begin from: all before the base.

        What was half written when the client was killed goes as well.
        """
        for path in self.folder.glob(f"{request.grant_id}-*"):
            turn_no, _, ending = path.name.rpartition("-")[2].partition(".")
            if ending != _ENDING or int(turn_no) < request.control_base:
                path.unlink(missing_ok=True)

    def forget(self, grant_id: str) -> None:
        """Remove all of a grant; missing is fine."""
        for path in self.folder.glob(f"{grant_id}-*"):
            path.unlink(missing_ok=True)

    def _path(self, grant_id: str, turn_no: int) -> Path:
        return self.folder / f"{grant_id}-{turn_no:05d}.{_ENDING}"
