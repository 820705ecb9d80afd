"""A bundle: Guilder and all that it needs, to be installed where there is no network.

Wheels with their hashes, a script that installs them as an ordinary user, and what the
other machine must have, stated first. Nothing is compiled and nothing is downloaded
there. This module asks pip to fetch wheels here, and installs nothing.
"""

import hashlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from guilder import sbom, wheel
from guilder.doctor.machine import OLDEST_DRIVER
from guilder_shared import durable
from guilder_shared.errors import StudyError

PACKAGES: Final = (
    "guilder",
    "guilder_client",
    "guilder_server",
    "guilder_shared",
    "guilder_simulations",
)
OLDEST_GLIBC: Final = (2, 17)
OTHERS: Final = ("requirements.txt", "SBOM.cdx.json", "install.sh", "README.txt")
TEMPLATES: Final = Path(__file__).parent


@dataclass(frozen=True)
class Needs:
    """What the other machine must have.

    Attributes:
        machine: As `uname -m` says.
        python: Major and minor.
        glibc: Oldest that runs every wheel.
        driver: For people.
    """

    machine: str
    python: str
    glibc: tuple[int, int]
    driver: str


def fetch(out: Path, names: Iterable[str], *, wheels: Path | None = None) -> None:
    """Let pip fetch wheels into a folder, by this machine's own settings of pip.

    Args:
        out: Folder; made if missing.
        names: `name==version` each.
        wheels: Take them from this folder instead of an index.

    Raises:
        StudyError: GLD-C153, with pip's own words.
    """
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += [
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--dest",
        str(out),
    ]
    if wheels is not None:
        command += ["--no-index", "--find-links", str(wheels)]
    done = subprocess.run(  # noqa: S603 - our own pip, no shell
        [*command, *names], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise StudyError(
            "GLD-C153",
            "pip cannot fetch the wheels of the bundle",
            why=said[:300],
            fix="Look at pip's settings (PIP_INDEX_URL, PIP_FIND_LINKS), or give a "
            "folder of wheels: --wheels. An environment that uv made may have no pip: "
            "`uv pip install pip`.",
        )


def assemble(folder: Path) -> str:
    """Make a bundle of a folder with `wheels/`; durable.

    Args:
        folder: It gets requirements.txt, SBOM.cdx.json, README.txt, SHA256SUMS and
            install.sh, which ends with 5 (GLD-M008) where a file was changed, is
            missing or was added.

    Returns:
        SHA-256 of SHA256SUMS, which stands for all other files.
    """
    wheels = sorted((folder / "wheels").glob("*.whl"))
    needs = needs_of(wheels)
    lines = [
        f"{name}=={version} --hash=sha256:{_sha256(path)}\n"
        for path in wheels
        for name, version, *_ in [parse_wheel_filename(path.name)]
    ]
    durable.write(folder / "requirements.txt", "".join(lines).encode())
    bill = json.dumps(sbom.of_wheels(wheels), indent=1, sort_keys=True)
    durable.write(folder / "SBOM.cdx.json", f"{bill}\n".encode())
    facts = {
        "machine": needs.machine,
        "python": needs.python,
        "glibc": f"{needs.glibc[0]}.{needs.glibc[1]}",
        "driver": needs.driver,
    }
    script = _filled("install_bundle.sh", facts)
    durable.write(folder / "install.sh", script.encode(), mode=0o755)
    size = 4 * sum(path.stat().st_size for path in wheels)
    told = {"version": _version(wheels), "size": f"{size / 1e9:.1f} GB"}
    text = _filled("bundle_readme.txt", facts | told)
    durable.write(folder / "README.txt", text.encode())
    files = [*wheels, *(folder / name for name in OTHERS)]
    sums = "".join(f"{_sha256(p)}  {p.relative_to(folder).as_posix()}\n" for p in files)
    durable.write(folder / "SHA256SUMS", sums.encode())
    return hashlib.sha256(sums.encode()).hexdigest()


def _filled(template: str, facts: Mapping[str, str]) -> str:
    """A file beside this one, with @NAME@ replaced."""
    text = (TEMPLATES / template).read_text("utf-8")
    for name, value in facts.items():
        text = text.replace(f"@{name.upper()}@", value)
    return text


def needs_of(wheels: Iterable[Path]) -> Needs:
    """What a machine must have to run these wheels; by their names alone."""
    glibc, driver = OLDEST_GLIBC, "none; studies train on the processor"
    for path in wheels:
        name, version, _, _ = parse_wheel_filename(path.name)
        found = re.findall(r"manylinux_(\d+)_(\d+)", path.name)
        if found:
            glibc = max(glibc, min((int(a), int(b)) for a, b in found))
        cuda = re.search(r"cu(?:da)?-?(\d\d)", f"{name}{version}")
        if (name == "torch" and cuda) or name.startswith("nvidia-cuda-runtime"):
            major = int(cuda[1]) if cuda else int(version.release[0])
            oldest = OLDEST_DRIVER.get(major)
            if oldest is not None:
                driver = f"{oldest[0]}.{oldest[1]} or newer, for CUDA {major}"
    python = ".".join(platform.python_version_tuple()[:2])
    return Needs(platform.machine(), python, glibc, driver)


def own_wheel(out: Path) -> Path:
    """Guilder itself as a wheel, from what is installed here."""
    here = distribution("guilder")
    files: dict[str, bytes] = {}
    for name in PACKAGES:
        spec = find_spec(name)
        assert spec is not None, name
        assert spec.origin is not None, name
        files |= wheel.files_of(Path(spec.origin).parent, name)
    from guilder_simulations.studies import path_of

    shipped = path_of("card-fraud").parent
    files |= wheel.files_of(shipped, "guilder_simulations/shipped")
    metadata = {
        name: text.encode()
        for name in ("METADATA", "entry_points.txt")
        if (text := here.read_text(name)) is not None
    }
    return wheel.pack("guilder", here.version, files, metadata, out)


def closure(extras: Iterable[str] = ()) -> Iterator[str]:
    """`name==version` of all that Guilder needs here, without itself."""
    named: set[str] = set()
    seen: set[tuple[str, str]] = set()  # a package, and an extra of it
    todo = [("guilder", extra) for extra in (*extras, "")]
    while todo:
        name, extra = todo.pop()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        try:
            here: Distribution = distribution(name)
        except PackageNotFoundError:
            continue  # for another system or Python
        if canonicalize_name(name) not in {*named, "guilder"}:
            named.add(canonicalize_name(name))
            yield f"{canonicalize_name(name)}=={here.version}"
        for line in here.requires or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                todo += [(need.name, each) for each in (*need.extras, "")]


def _version(wheels: Iterable[Path]) -> str:
    named = {
        str(n): str(v) for n, v, *_ in (parse_wheel_filename(p.name) for p in wheels)
    }
    return named.get("guilder", "")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
