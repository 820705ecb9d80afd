"""Which file system a folder lies on, and whether it keeps what a ledger relies on.

A lock that another machine does not see, or a sync that ends in a cache far away, would
let a charge be lost or made twice. Asks the kernel (Linux); it writes nothing.
"""

import re
from pathlib import Path

from guilder_shared.errors import IntegrityError

MOUNTS = Path("/proc/self/mountinfo")  # not there on other systems
# Shared between machines, or served by a process that may answer a sync too early.
SHARED = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse", "gfs2", "glusterfs",
    "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "pvfs2",
    "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
})  # fmt: skip
ESCAPED = re.compile(r"\\(\d{3})")  # of a mount point: a space is \040


def demand_local(folder: Path, *, mounts: Path = MOUNTS) -> None:
    """Raise unless the file system of `folder` is one of this machine's own disks.

    What the kernel does not tell is let through: the file itself is asked next
    (GLD-I015).

    Args:
        folder: It, or the nearest folder above it that is there.
        mounts: In the form of Linux's mountinfo.

    Raises:
        IntegrityError: It is shared over a network or with a host (GLD-I100).
    """
    kind, mounted_at = find(folder, mounts=mounts)
    if kind not in SHARED and not kind.startswith("fuse."):
        return
    raise IntegrityError(
        "GLD-I100",
        f"{folder} lies on the file system {kind!r} (mounted at {mounted_at})",
        why="Locks and syncs there may not hold: a charge could be lost or made twice.",
        fix="Set state_dir under [site] in site.toml to a folder on a local disk.",
    )


def find(folder: Path, *, mounts: Path = MOUNTS) -> tuple[str, str]:
    """The type of the file system that holds `folder`, and where it is mounted.

    Returns:
        Two empty texts where the kernel does not tell.
    """
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return "", ""
    real = folder.resolve()
    kind, mounted_at, depth = "", "", -1
    for line in lines:
        fields, _, told = line.partition(" - ")
        place = Path(ESCAPED.sub(_letter, fields.split(" ")[4]))
        # Of two at one place the later one hides the earlier.
        if real.is_relative_to(place) and len(place.parts) >= depth:
            kind, mounted_at = told.split(" ")[0], str(place)
            depth = len(place.parts)
    return kind, mounted_at


def _letter(found: re.Match[str]) -> str:
    return chr(int(found[1], 8))
