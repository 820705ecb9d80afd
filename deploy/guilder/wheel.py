"""Wheels without a build tool: a pure Python package, packed the same way every time.

The same files give the same bytes, so that two people can compare a hash. It compiles
nothing, runs nothing of the package, and knows nothing of what the package does.
"""

import base64
import hashlib
import re
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from guilder_shared.errors import StudyError

MOMENT: Final = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can name
TAG: Final = "py3-none-any"
WHEEL: Final = (
    f"Wheel-Version: 1.0\nGenerator: guilder\nRoot-Is-Purelib: true\nTag: {TAG}\n"
)
SKIPPED: Final = ("__pycache__",)


def pack_project(folder: Path, out: Path) -> Path:
    """Pack the package that `folder/pyproject.toml` describes.

    Args:
        folder: With pyproject.toml and one or more packages (folders with
            `__init__.py`).
        out: Folder for the wheel; made if missing.

    Returns:
        The wheel.

    Raises:
        StudyError: GLD-C151, it is no such package.
    """
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))[
            "project"
        ]
        name, version = str(project["name"]), str(project["version"])
    except (OSError, ValueError, KeyError, TypeError):
        raise _no_package(
            folder, "pyproject.toml names no package and version"
        ) from None
    files: dict[str, bytes] = {}
    for package in sorted(path.parent for path in folder.glob("*/__init__.py")):
        if package.name != "tests":
            files |= files_of(package, package.name)
    if not files:
        raise _no_package(folder, "there is no folder with __init__.py")
    metadata = {"METADATA": _metadata(project).encode()}
    points = _entry_points(project.get("entry-points", {}))
    if points:
        metadata["entry_points.txt"] = points.encode()
    return pack(name, version, files, metadata, out)


def files_of(package: Path, prefix: str) -> dict[str, bytes]:
    """All files of an import package, without compiled ones, by their wheel's path."""
    return {
        f"{prefix}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and not {*path.parts} & {*SKIPPED}
    }


def pack(
    name: str,
    version: str,
    files: Mapping[str, bytes],
    metadata: Mapping[str, bytes],
    out: Path,
) -> Path:
    """Write a wheel.

    Args:
        name: Of the package.
        version: Likewise.
        files: By their path in the wheel.
        metadata: Files of its `.dist-info`; WHEEL and RECORD are added.
        out: Folder; made if missing.
    """
    stem = f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}"
    inside = {**files}
    inside |= {f"{stem}.dist-info/{n}": data for n, data in metadata.items()}
    inside[f"{stem}.dist-info/WHEEL"] = WHEEL.encode()
    record = "".join(f"{n},{_hash(data)},{len(data)}\n" for n, data in inside.items())
    record += f"{stem}.dist-info/RECORD,,\n"
    inside[f"{stem}.dist-info/RECORD"] = record.encode()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{stem}-{TAG}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for n, data in inside.items():
            entry = zipfile.ZipInfo(n, MOMENT)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return path


def _metadata(project: Mapping[str, Any]) -> str:
    lines = ["Metadata-Version: 2.1"]
    lines += [f"Name: {project['name']}", f"Version: {project['version']}"]
    if "description" in project:
        lines.append(f"Summary: {str(project['description']).splitlines()[0]}")
    if "requires-python" in project:
        lines.append(f"Requires-Python: {project['requires-python']}")
    lines += [f"Requires-Dist: {each}" for each in project.get("dependencies", ())]
    return "\n".join(lines) + "\n"


def _entry_points(groups: Mapping[str, Mapping[str, str]]) -> str:
    lines = []
    for group, points in groups.items():
        lines.append(f"[{group}]")
        lines += [f"{name} = {target}" for name, target in points.items()]
    return "\n".join(lines) + "\n" if lines else ""


def _hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
    return f"sha256={digest.rstrip('=')}"


def _no_package(folder: Path, what: str) -> StudyError:
    return StudyError(
        "GLD-C151",
        f"{folder} is no package that can be packed: {what}",
        fix="`guilder recipe new NAME` writes one that can.",
    )
