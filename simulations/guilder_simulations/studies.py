"""The studies that come with Guilder, as files on this machine."""

from pathlib import Path

from guilder_shared.errors import StudyError

BESIDE = Path(__file__).parent / "shipped"  # in an installed wheel
IN_REPO = Path(__file__).parent.parent / "studies"


def path_of(name: str) -> Path:
    """The file of a study that comes with Guilder.

    Raises:
        StudyError: There is none of that name; lists those there are.
    """
    folder = BESIDE if BESIDE.is_dir() else IN_REPO
    path = folder / f"{name}.toml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise StudyError("GLD-C085", f"no study {name!r} comes with Guilder: {known}")
    return path
