"""The doctor on this machine: disks that are full, drivers that are old."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guilder.doctor import machine, versions
from guilder.doctor.finding import exit_code

FULL = """
import json, resource, signal, sys
from dataclasses import asdict
from pathlib import Path
from guilder.doctor import machine
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
print(json.dumps(asdict(machine.disk(Path(sys.argv[1])))))
"""


def test_a_folder_that_takes_no_megabyte_is_found_and_left_clean(
    tmp_path: Path,
) -> None:
    """The process may write 4 KiB a file, as under a quota."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    found = json.loads(done.stdout)

    assert (found["id"], found["exit_code"]) == ("GLD-M002", 2)
    assert found["why"]
    assert found["fix"]
    assert list(tmp_path.iterdir()) == []


def on_a_disk_of(size: str, folder: Path, code: str) -> dict[str, Any]:
    """What Python code told in JSON of a folder that is a small file system."""
    mount = f"mount -t tmpfs -o size={size} none {folder} && exec "
    script = f'{mount}"$0" -c "$1" {folder}'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount",
         "sh", "-c", script, sys.executable, code],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "mount:" in done.stderr or "unshare" in done.stderr:
        pytest.skip("no mount here")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_full_disk_is_found(tmp_path: Path) -> None:
    """A real file system of 64 KiB, where this user may mount one."""
    code = FULL.replace("(4096, 4096)", "(2**40, 2**40)").replace(
        "resource.setrlimit", "lambda *_:", 1
    )
    found = on_a_disk_of("64k", tmp_path, code)

    assert found["id"] == "GLD-M002"
    assert "No space left" in found["what"]


def test_a_folder_that_is_not_made_yet_is_tried_where_it_will_be(
    tmp_path: Path,
) -> None:
    assert str(tmp_path) in machine.disk(tmp_path / "state" / "deep").what
    assert list(tmp_path.iterdir()) == []


def card(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """A machine whose `nvidia-smi` prints one card."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{line}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("cuda", "driver", "device", "error_id", "code"),
    [
        ("13.0", "580.65.06", "cuda", "", 0),
        ("13.0", "570.10", "cuda", "GLD-M005", 2),
        ("12.6", "570.10", "cpu", "", 0),
        (None, "580.65.06", "cuda", "GLD-M004", 2),
        (None, "580.65.06", "cpu", "GLD-M004", 0),
    ],
)
def test_a_driver_is_compared_with_the_cuda_that_torch_is_built_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cuda: str | None,
    driver: str,
    device: str,
    error_id: str,
    code: int,
) -> None:
    card(tmp_path, monkeypatch, f"NVIDIA L4, {driver}")
    monkeypatch.setattr(machine, "_cuda_of_torch", lambda: cuda)

    found = machine.gpu(device)

    assert (found.id, found.exit_code) == (error_id, code)
    assert f"NVIDIA L4, driver {driver}" in found.what


def test_a_gpu_that_is_asked_for_and_missing_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert machine.gpu("cuda").id == "GLD-G002"
    assert machine.gpu("cpu").state == "ok"


def test_the_cuda_of_torch_is_read_without_loading_it() -> None:
    import torch

    assert machine._cuda_of_torch() == torch.version.cuda


def test_this_machine_can_run_what_is_installed_here() -> None:
    assert machine.c_library().state == "ok"
    assert machine.glibc_needed() >= (2, 17)
    assert next(iter(versions.check())).state == "ok"


def test_memory_is_the_least_of_what_system_and_limit_leave(tmp_path: Path) -> None:
    info, groups = tmp_path / "meminfo", tmp_path / "cgroup"
    groups.mkdir()
    info.write_text("MemTotal: 9000000 kB\nMemAvailable:    4000000 kB\n")

    assert machine.free_memory(info, groups) == 4_000_000 * 1024
    (groups / "memory.max").write_text("1000000\n")
    (groups / "memory.current").write_text("400000\n")
    assert machine.free_memory(info, groups) == 600_000
    (groups / "memory.stat").write_text("active_file 7\ninactive_file 300000\n")
    assert machine.free_memory(info, groups) == 900_000  # files that were read
    (groups / "memory.max").write_text("max\n")
    assert machine.free_memory(info, groups) == 4_000_000 * 1024
    assert machine.free_memory(tmp_path / "none", groups) is None


@pytest.mark.parametrize(
    ("mib", "state", "code"), [(900, "wrong", 2), (2000, "warning", 0), (4000, "ok", 0)]
)
def test_little_memory_is_found(
    tmp_path: Path, mib: int, state: str, code: int
) -> None:
    info = tmp_path / "meminfo"
    info.write_text(f"MemTotal: 9000000 kB\nMemAvailable: {mib * 1024} kB\n")

    found = machine.memory(info, tmp_path)

    assert (found.state, found.exit_code) == (state, code)
    assert (found.id == "GLD-M003") == (state != "ok")


def test_a_disk_with_little_room_is_found(tmp_path: Path) -> None:
    """A real file system of 8 MiB, where this user may mount one."""
    code = (
        "import json, sys; from dataclasses import asdict; from pathlib import Path; "
    )
    code += "from guilder.doctor import machine; "
    code += "print(json.dumps(asdict(machine.disk(Path(sys.argv[1])))))"

    found = on_a_disk_of("8m", tmp_path, code)

    assert (found["id"], found["exit_code"]) == ("GLD-M001", 2)
    assert found["why"]
    assert found["fix"]


def package(folder: Path, name: str, version: str, tag: str = "") -> None:
    """What an installed wheel leaves of itself."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(head)
    (info / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tag or 'py3-none-any'}\n")


def test_a_wheel_for_a_newer_glibc_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "late", "1.0", "cp311-cp311-manylinux_2_99_x86_64")
    monkeypatch.syspath_prepend(tmp_path)

    found = machine.c_library()

    assert (found.id, found.exit_code) == ("GLD-M006", 2)
    assert "2.99" in found.what


def test_a_package_of_another_version_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "flwr", "0.1")
    monkeypatch.syspath_prepend(tmp_path)

    (found,) = versions.check()

    assert (found.id, found.exit_code) == ("GLD-M007", 2)
    assert "flwr is 0.1, needed is " in found.what
    assert found.fix


def test_the_gravest_finding_decides_the_exit_code() -> None:
    from guilder.doctor.finding import fine, warning, wrong

    words = {"why": "w", "fix": "f"}
    good, odd = fine("a", "b"), warning("a", "GLD-M001", "b", **words)
    bad = wrong("a", "GLD-M001", "b", exit_code=2, **words)
    changed = wrong("a", "GLD-I001", "b", exit_code=5, **words)

    assert exit_code([good, odd]) == 0
    assert exit_code([good, odd], strict=True) == 1
    assert exit_code([good, bad, changed, odd]) == 5
