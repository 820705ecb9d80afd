"""The committed gRPC stubs are what protoc makes of the .proto files."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_generated_stub_has_drifted() -> None:
    command = [sys.executable, str(ROOT / "deploy" / "protos.py"), "--check"]

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
