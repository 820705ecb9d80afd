"""What the demo's processes ask of the network, seen by the kernel."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = "trace=connect,bind,sendto,sendmsg,sendmmsg"
NEAR = re.compile(
    r'inet_addr\("(127\.[0-9.]+|0\.0\.0\.0)"\)|"(::1|::ffff:127\.[0-9.]+)"'
)


@pytest.mark.slow(minutes=1.5)
@pytest.mark.timeout(600)
def test_no_socket_of_the_demo_leaves_this_machine(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    trace = tmp_path / "trace"
    watched = ["strace", "-f", "-qq", "-e", CALLS, "-o", str(trace)]
    demo = [sys.executable, "-m", "guilder", "demo", "--out", str(tmp_path / "demo")]

    subprocess.run([*watched, *demo], check=True, timeout=500)

    calls = [line for line in trace.read_text().splitlines() if "AF_INET" in line]
    assert len(calls) > 20  # it does see sockets, those of native code too
    assert [call for call in calls if not NEAR.search(call)] == []
