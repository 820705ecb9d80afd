"""Where the passphrase of the authority's keys comes from: a file, or the environment.

A file suits a service (systemd's LoadCredential, mode 0400), the environment a
container. It is never an argument, which every process can see, and never logged.
"""

import os
from pathlib import Path

from guilder_shared.identity import read_private

VARIABLE = "GUILDER_PASSPHRASE"


def read(file: Path | None) -> bytes | None:
    """The passphrase, without the newline at its end; None if there is none.

    Raises:
        EnrolmentError: The file cannot be read (GLD-E001), or others may (GLD-E002).
    """
    if file is not None:
        return read_private(file).rstrip(b"\r\n") or None
    return os.environ.get(VARIABLE, "").encode() or None
