"""Files that are there after a crash, whole or not at all.

Written, fsynced, renamed, and their folder fsynced: what this returns from may be
relied on. It knows nothing of what a file means.
"""

import os
from pathlib import Path

OWNER_ONLY = 0o600


def write(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that after a crash it is the old one or the new one, never half.

    Missing folders are made.

    Args:
        path: The file; what it held is replaced.
        data: Everything it shall hold.
        mode: Permissions from its first instant, less the process's umask.

    Raises:
        OSError: The disk refuses; the old file stands.
    """
    is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    write_through(os.open(part, flags, mode), data)
    part.replace(path)
    sync_folder(path.parent)
    if is_new:  # its own name stands in the folder above
        sync_folder(path.parent.parent)


def write_through(descriptor: int, data: bytes) -> None:
    """Write to an open file, fsync and close it; its name is not durable yet."""
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
