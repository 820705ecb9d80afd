"""The runner behind `make bench`, on benchmarks of a few lines."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIGURES = {
    "benchmark": "toy",
    "figures": {"step_s": 0.25, "times_other": 3.0, "free": 7.0},
    "goals": {"step_s": {"at_most": 0.2}, "times_other": {"at_least": 2}},
    "missed": ["step_s"],
    "machine": "here",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "benchmarks/all.py", tmp_path)
    (tmp_path / "toy.py").write_text(
        f"import sys\nassert sys.argv[1:] == ['--json']\n"
        f"print('chatter')\nprint({json.dumps(FIGURES)!r})\n"
    )
    return tmp_path


def bench(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "all.py"), *words],
        capture_output=True,
        text=True,
        check=False,
    )


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_shows_each_figure_beside_its_goal(folder: Path) -> None:
    done = bench(folder)

    table = [cells(line) for line in done.stdout.splitlines() if line.startswith("|")]
    assert done.returncode == 0
    assert table[2:] == [
        ["toy", "step_s", "0.25", "≤ 0.2", "MISSED"],
        ["toy", "times_other", "3", "≥ 2", "met"],
        ["toy", "free", "7", "", ""],
    ]


def test_a_page_is_renewed_between_its_marks_only_when_asked(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text("a\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nz\n")

    bench(folder)
    assert "old" in page.read_text()

    bench(folder, "--write", str(page))
    text = page.read_text()
    assert "old" not in text
    assert "| toy" in text
    assert text.startswith("a\n<!--")
    assert text.endswith("<!-- figures: end -->\nz\n")


@pytest.mark.parametrize(
    "body", ["raise SystemExit(3)", "print('no json')", "print(1)"]
)
def test_a_broken_benchmark_is_named_and_spoils_nothing_else(
    folder: Path, body: str
) -> None:
    (folder / "broken.py").write_text(body + "\n")

    done = bench(folder)

    assert done.returncode == 1
    assert "broken.py" in done.stderr
    assert "| toy" in done.stdout
