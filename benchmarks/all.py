"""Run every benchmark beside this file, and print their figures as one table.

Each program runs alone, one after the other, as `python NAME.py --json`. Nothing is
judged here and nothing is written, unless `--write PAGE` asks for it.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
LIMIT_S = 7200
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
VERSIONS_OF = ("guilder", "flwr", "torch", "opacus", "dp-accounting", "numpy")


class Row(NamedTuple):
    """One figure of one benchmark, as text for the table."""

    benchmark: str
    key: str
    figure: str
    goal: str
    outcome: str


def programs(names: list[str]) -> list[Path]:
    """The benchmarks to run: all, or those named."""
    found = sorted(path for path in HERE.glob("*.py") if path != Path(__file__))
    unknown = set(names) - {path.stem for path in found}
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(sorted(unknown))}")
    return [path for path in found if not names or path.stem in names]


def run(program: Path) -> dict[str, Any]:
    """Run one benchmark and return its last line, decoded.

    Raises:
        RuntimeError: It failed, took more than two hours, or its last line is
            not the JSON object that benchmarks/README.md describes.
    """
    try:
        done = subprocess.run(
            [sys.executable, str(program), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
        result = json.loads(done.stdout.strip().rpartition("\n")[2])
        missing = {"benchmark", "figures", "goals", "missed", "machine"} - set(result)
    except (subprocess.SubprocessError, ValueError, TypeError) as error:
        raise RuntimeError(f"{program.name}: {error}") from error
    if missing:
        raise RuntimeError(f"{program.name}: its JSON lacks {sorted(missing)}")
    return dict(result)


def rows(result: dict[str, Any]) -> list[Row]:
    """The figures of one benchmark, each beside its goal."""
    table = []
    for key, figure in result["figures"].items():
        bounds = result["goals"].get(key, {})
        signs = {"at_most": "≤", "at_least": "≥"}
        goal = " ".join(f"{signs[name]} {bound:g}" for name, bound in bounds.items())
        outcome = "" if not goal else "MISSED" if key in result["missed"] else "met"
        table.append(Row(result["benchmark"], key, f"{figure:.4g}", goal, outcome))
    return table


def as_markdown(table: list[Row]) -> str:
    """The table, in columns that also read well on a terminal."""
    header = Row("benchmark", "figure", "measured", "goal", "")
    widths = [max(map(len, column)) for column in zip(header, *table, strict=True)]
    lines = [
        "| " + " | ".join(map(str.ljust, row, widths)) + " |"
        for row in (header, Row(*("-" * width for width in widths)), *table)
    ]
    return "\n".join(lines)


def circumstances() -> str:
    """Date, machine and versions: without them a figure means nothing."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in VERSIONS_OF
    )
    return (
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}"
    )


def write(page: Path, text: str) -> None:
    """Put `text` between the two marks of a page."""
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} lacks the lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def main() -> int:
    """Run, print, and say by the exit code whether every benchmark ran."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="which benchmarks; default all")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="renew its table")
    options = parser.parse_args()
    table: list[Row] = []
    broken = []
    for program in programs(options.names):
        print(f"{program.stem} ...", file=sys.stderr, flush=True)
        try:
            table += rows(run(program))
        except RuntimeError as error:
            broken.append(str(error))
    text = f"{circumstances()}\n\n{as_markdown(table)}"
    print(text)
    if options.write and not broken:
        write(options.write, text)
    for line in broken:
        print(line, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
