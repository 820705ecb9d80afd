"""What a user is told when a command cannot go on; never a traceback unasked.

An unexpected error's own text may hold a value from a row, so only its type and its
places are shown. The exit code follows from the error.
"""

import sqlite3
import traceback
from pathlib import Path

from guilder_shared.errors import GuilderError, RunFailed
from guilder_shared.plain_text import one_line

NUM_PLACES = 3


def told(error: Exception) -> GuilderError:
    """The error to show: ours as it is, a disk's as GLD-R031, a bug as GLD-R033."""
    if isinstance(error, GuilderError):
        return error
    if isinstance(error, OSError | sqlite3.OperationalError):
        return RunFailed(
            "GLD-R031",
            _refused(error),
            fix="Make room or give permission, then repeat the command.",
        )
    frames = traceback.extract_tb(error.__traceback__)[-NUM_PLACES:]
    places = " > ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames)
    return RunFailed(
        "GLD-R033",
        f"Guilder met a bug: {type(error).__name__} at {places}",
        fix="Repeat it as `guilder --debug …` and report what that prints.",
    )


def _refused(error: OSError | sqlite3.OperationalError) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return f"a database cannot be written or read: {one_line(str(error), 200)}"
    what = one_line(error.strerror or type(error).__name__, 200)
    if error.filename is None:
        return f"the system refused a file or a connection: {what}"
    return f"{one_line(str(error.filename), 300)}: {what}"
