"""A disk that is full or broken at any call: no confirmed charge is lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc")


def work_on_a_faulty_disk(folder: Path, last_call: int, stride: int) -> dict[str, int]:
    """Every scenario of `faulty_child.py`; calls of the C library fail for real."""
    assert COMPILER is not None
    library = folder / "faulty_disk.so"
    source = str(HERE / "faulty_disk.c")
    build = [COMPILER, "-shared", "-fPIC", "-o", str(library), source, "-ldl"]
    subprocess.run(build, check=True)
    child = [str(HERE / "faulty_child.py"), str(folder), str(last_call), str(stride)]
    done = subprocess.run(
        [sys.executable, *child],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    counts: dict[str, int] = found
    return counts


@pytest.mark.brief
@pytest.mark.skipif(COMPILER is None, reason="no C compiler to break the disk with")
def test_a_full_or_broken_disk_loses_no_confirmed_charge(tmp_path: Path) -> None:
    found = work_on_a_faulty_disk(tmp_path, last_call=40, stride=7)

    assert found["hit"] >= 20


@pytest.mark.slow(minutes=4)
@pytest.mark.timeout(1200)
@pytest.mark.skipif(COMPILER is None, reason="no C compiler to break the disk with")
def test_any_full_or_broken_disk_loses_no_confirmed_charge(tmp_path: Path) -> None:
    found = work_on_a_faulty_disk(tmp_path, last_call=70, stride=1)

    assert found["hit"] >= 200
