"""One folder, one process: a claim that ends when its process does, however it does.

The kernel holds the claim (flock), so that a kill leaves nothing to be cleaned up. This
module knows nothing of what lies in the folder; a ledger has its own lock.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guilder_shared.errors import RunFailed


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold `folder` while the block runs; made if missing, by its owner alone.

    Raises:
        RunFailed: GLD-R030 another process holds it; GLD-R031 the folder cannot be
            made or written, as on a full or read-only disk.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (folder / ".claim").open("ab")
    except OSError as error:
        raise RunFailed(
            "GLD-R031",
            f"{folder} cannot be written: {error.strerror}",
            why="A run is kept on disk before anything of it counts.",
            fix="Choose a folder on a writable disk with room, owned by this user.",
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFailed(
                "GLD-R030",
                f"{folder} is in use by another process of Guilder",
                why="Two processes would write one run.",
                fix=f"`fuser -v {folder}/.claim` names it: end it, or choose another "
                "folder.",
            ) from None
        yield
