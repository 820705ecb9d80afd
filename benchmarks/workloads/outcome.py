"""How a benchmark ends: figures beside their goals, and the machine they are of."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

Figures = Mapping[str, float]
Goals = Mapping[str, Mapping[str, float]]


def machine(*packages: str) -> dict[str, Any]:
    """The machine at this moment; `load` tells whether others were at work."""
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        **{name: version(name) for name in packages},
    }


def missed(figures: Figures, goals: Goals) -> list[str]:
    """The keys that were measured and whose goal was not reached."""
    return [
        key
        for key, goal in goals.items()
        if key in figures
        and (
            figures[key] > goal.get("at_most", float("inf"))
            or figures[key] < goal.get("at_least", float("-inf"))
        )
    ]


def tell(
    benchmark: str,
    figures: Figures,
    goals: Goals,
    where: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Print the figures; the last line is one JSON object.

    Args:
        benchmark: The program's name.
        figures: What was measured.
        goals: `at_most` or `at_least`, by key.
        where: From `machine`, of before the measurement.
        as_json: Print nothing else.
    """
    if not as_json:
        for key, figure in figures.items():
            print(f"{key:32} {figure}")
    result = {
        "benchmark": benchmark,
        "figures": figures,
        "goals": goals,
        "missed": missed(figures, goals),
        "machine": where,
    }
    print(json.dumps(result))
