"""JSON that somebody else wrote: whatever it is, reading it ends no process."""

import json
from typing import Any


def read(data: bytes, **options: Any) -> Any:
    """As `json.loads`, with its options.

    Raises:
        ValueError: It is no JSON, or nested too deep for Python's reader.
    """
    try:
        return json.loads(data, **options)
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None
