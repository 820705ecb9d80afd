"""A run's state at a glance, from its database alone: no study read, no model built.

One damaged run never hides the others: it is listed as damaged. Nothing is written.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from guilder_server.consents import WAITS
from guilder_server.runfiles import described
from guilder_shared.errors import IntegrityError

OPEN_STATES: Final = ("queued", "running", WAITS)
FINAL_STATES: Final = ("finished", "failed", "stopped")
DAMAGED: Final = "damaged"


def glance(folder: Path) -> dict[str, Any]:
    """What `guilder run list` shows of the run in `folder`.

    Returns:
        run_id, state, round (the last committed), rounds, submitted (seconds since
        1970), error (as `described`, or None), waits (site: why, of a run that waits
        for people). The state is "damaged" where the
        database cannot be read; the folder's name is then the run's id.
    """
    try:
        address = f"{(folder / 'run.db').absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as database:
            facts = dict(database.execute("SELECT key, value FROM facts"))
            (last,) = database.execute("SELECT MAX(round_no) FROM rounds").fetchone()
        found = {key: json.loads(value) for key, value in facts.items()}
        return {
            "run_id": found["run_id"],
            "state": found["state"],
            "round": last or 0,
            "rounds": found["rounds"],
            "submitted": float(found["submitted"]),
            "error": found["error"],
            "waits": (found.get("waits") or {}).get("sites", {}),
        }
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        return _damaged(folder, error)


def _damaged(folder: Path, error: Exception) -> dict[str, Any]:
    damage = IntegrityError(
        "GLD-I051",
        f"{folder / 'run.db'} is damaged ({type(error).__name__})",
        fix="Restore the run's folder from a backup, or submit the study again.",
    )
    return {
        "run_id": folder.name,
        "state": DAMAGED,
        "round": 0,
        "rounds": 0,
        "submitted": 0.0,
        "error": described(damage),
        "waits": {},
    }
