"""One folder, one process."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guilder_shared.claims import claimed
from guilder_shared.errors import RunFailed

HOLDER = """
import sys, time
from pathlib import Path
from guilder_shared.claims import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_process_until_that_one_is_killed(
    tmp_path: Path,
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "new")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    with pytest.raises(RunFailed) as caught, claimed(tmp_path / "new"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    assert caught.value.error_id == "GLD-R030"
    with claimed(tmp_path / "new"):
        assert (tmp_path / "new").stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_told_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(RunFailed, match="Not a directory") as caught,
        claimed(tmp_path / "file" / "run"),
    ):
        pass

    assert caught.value.error_id == "GLD-R031"
