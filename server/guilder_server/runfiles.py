"""The plain files of a run's folder, for people; nothing here is relied on.

This module opens no database.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guilder_shared.errors import GuilderError
from guilder_shared.study import Study


def as_toml(study: Study) -> bytes:
    """A study as its file."""
    import tomli_w

    parts = study.model_dump(mode="json", by_alias=True, exclude_none=True)
    return tomli_w.dumps(parts).encode()


def metric_lines(
    round_no: int, metrics: Mapping[str, float], now: float
) -> list[dict[str, Any]]:
    """A round's metrics as lines of metrics.jsonl."""
    return [
        {"round": round_no, "site": None, "name": name, "value": value, "t": now}
        for name, value in metrics.items()
    ]


def described(error: GuilderError) -> dict[str, Any]:
    """An error as JSON: id, what, why, fix and the exit code it deserves."""
    return {
        "id": error.error_id,
        "what": error.what,
        "why": error.why,
        "fix": error.fix,
        "exit_code": error.exit_code,
    }


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add one line of JSON to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
