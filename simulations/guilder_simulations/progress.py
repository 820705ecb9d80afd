"""How a run looks while it goes: a live line on a terminal, one line a round otherwise.

Writes to stderr only; stdout belongs to data.
"""

import sys
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar


class Progress:
    """Shows the events of one run."""

    def __init__(self, num_rounds: int, folder: Path) -> None:
        self._num_rounds = num_rounds
        self._folder = folder
        self._console = Console(stderr=True)
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._bar.add_task("starting", total=self._num_rounds)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Show one event of the run."""
        if event["kind"] != "round":
            if event["kind"] not in ("run-finished",):
                self._line(f"{event['kind']} {_details(event)}")
            return
        metrics = "  ".join(f"{k} {v:.4f}" for k, v in event["metrics"].items())
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=event["round"], description=metrics
            )
        else:
            self._line(f"round {event['round']}/{self._num_rounds}  {metrics}")

    def interrupted(self, study: Path) -> None:
        """Say how to go on."""
        self._line(f"stopped. go on: guilder simulate {study} --out {self._folder}")

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)


def _details(event: dict[str, Any]) -> str:
    parts = (f"{k}={v}" for k, v in event.items() if k not in ("t", "kind"))
    return " ".join(parts)
