"""The folder of the sites' certificates: a view for people and for the sites' port.

Where sites enrol, the log decides who belongs here, and this folder is written anew
from it; by hand it is filled only where there is no enrolment.
"""

from collections.abc import Iterable
from pathlib import Path

from guilder_server.members import Member
from guilder_shared import durable


def write(folder: Path, members: Iterable[Member]) -> None:
    """Write NAME.pem of each active site; other certificates are taken away."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    active = {
        f"{m.name}.pem": m.certificate.encode()
        for m in members
        if m.role == "site" and m.state == "active"
    }
    for path in folder.glob("*.pem"):
        if path.name not in active:
            path.unlink()
    for name, pem in active.items():
        durable.write(folder / name, pem)
