"""What is installed here: names, versions, a digest; whether it is an allowed wheel.

It reads metadata and files of installed packages and loads none of them.

Review, mathematics: versions of software are no one's rows.
Review, crash order: keeps nothing.
"""

import functools
import hashlib
import zipfile
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distribution,
    distributions,
)
from pathlib import Path, PurePosixPath

from guilder_shared.errors import PolicyRefused

BYTECODE = ".pyc"  # made here from the sources, by whoever may write them


def listing() -> list[str]:
    """`name==version` of everything that is installed, sorted."""
    found = {(each.name or "").lower(): each.version for each in distributions()}
    return sorted(f"{name}=={number}" for name, number in found.items() if name)


@functools.cache
def digest() -> str:
    """SHA-256 over `listing`, one a line; as it is when first asked for."""
    return hashlib.sha256("\n".join(listing()).encode()).hexdigest()


def demand_wheel(package: str, version: str, wheel: Path, sha256: str) -> Distribution:
    """Raise unless the installed package is, file by file, a wheel with this hash.

    Args:
        package: Its name.
        version: Its version.
        wheel: The file that was installed, kept by the site.
        sha256: Of that file, as the site allowed it.

    Returns:
        The installed package, whose code was not loaded.

    Raises:
        PolicyRefused: GLD-S068, with what differs.
    """
    try:
        data = wheel.read_bytes()
    except OSError as error:
        raise _differs(package, f"{wheel} cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != sha256.lower():
        raise _differs(package, f"{wheel.name} has another hash than site.toml says")
    try:
        here = distribution(package)
    except PackageNotFoundError:
        raise _differs(package, "it is not installed here") from None
    if here.version != version:
        raise _differs(package, f"version {here.version} is installed, not {version}")
    _compare(package, here, wheel)
    return here


def _compare(package: str, here: Distribution, wheel: Path) -> None:
    """Every file of the wheel is here as it is there, and no source besides."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if not n.endswith("/")]
            theirs = {name: archive.read(name) for name in names}
    except (OSError, zipfile.BadZipFile, RuntimeError):
        raise _differs(package, f"{wheel.name} is no wheel") from None
    code = {n: data for n, data in theirs.items() if not _is_metadata(n)}
    for name, data in code.items():
        path = Path(str(here.locate_file(name)))
        if not path.is_file() or path.read_bytes() != data:
            raise _differs(package, f"{name} is not as in the wheel")
    folders = {PurePosixPath(name).parts[0] for name in code}
    for folder in folders:
        root = Path(str(here.locate_file(folder)))
        for path in root.rglob("*") if root.is_dir() else ():
            own = (PurePosixPath(folder) / path.relative_to(root).as_posix()).as_posix()
            if path.is_file() and path.suffix != BYTECODE and own not in code:
                raise _differs(package, f"{own} is not in the wheel")


def _is_metadata(name: str) -> bool:
    """Whether installers write this file anew: RECORD, INSTALLER and the like."""
    return PurePosixPath(name).parts[0].endswith((".dist-info", ".data"))


def _differs(package: str, what: str) -> PolicyRefused:
    return PolicyRefused(
        "GLD-S068",
        f"the recipe's package {package!r} is not the one that was allowed: {what}",
        why="Its code would compute on this site's rows.",
        fix="Install the allowed wheel (`pip install --no-deps WHEEL`), or have the "
        "new one looked at and write its hash into [recipe.…].",
    )
