"""Sealed turns: what a site sends for a turn, as a file that cannot change.

A file counts once its SHA-256 stands in the ledger; it is written, fsynced and
renamed before that row. It is deleted when the server's receipt is in the chain.
"""

from pathlib import Path

from guilder_shared import durable
from guilder_shared.errors import IntegrityError
from guilder_shared.messages import sha256


class SealedTurns:
    """The folder `turns/` of one site."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder

    def path(self, grant_id: str, turn_no: int) -> Path:
        """Where a turn's sealed bytes lie."""
        return self.folder / f"{grant_id}-{turn_no:05d}.safetensors"

    def write(self, grant_id: str, turn_no: int, data: bytes) -> str:
        """Make the bytes durable; returns their SHA-256 for the ledger's row."""
        path = self.path(grant_id, turn_no)
        durable.write(path, data, mode=durable.OWNER_ONLY)
        return sha256(data)

    def read(self, grant_id: str, turn_no: int, expected_sha256: str) -> bytes:
        """The sealed bytes, exactly as the ledger knows them.

        Raises:
            IntegrityError: The file is gone or is not what was sealed.
        """
        path = self.path(grant_id, turn_no)
        data = path.read_bytes() if path.exists() else b""
        if sha256(data) != expected_sha256:
            raise IntegrityError(
                "GLD-I030",
                f"the sealed turn {path.name} is not what the ledger says was sealed",
                fix="restore the file from a backup; the turn is never trained again",
            )
        return data

    def delete(self, grant_id: str, turn_no: int) -> None:
        """Remove a turn whose receipt is in the chain; missing is fine."""
        self.path(grant_id, turn_no).unlink(missing_ok=True)
