"""Recipes of others: ordinary Python packages that each machine installs itself.

A study names a recipe and carries no code. One that is not Guilder's own is found by
entry point (`guilder.recipes`), and loaded only where the file of this machine names
its package, version and wheel, and only if what is installed is that wheel, byte by
byte. A name of Guilder's own is never taken over. Nothing is installed here.

Review, mathematics: a recipe gives a loss for each row, and metrics. That rows stay
apart and noise stays whole is tried by validator and self-test before every study.
Review, crash order: in memory.
"""

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any, Final

from guilder_shared import installed, tasks
from guilder_shared.errors import PolicyRefused, StudyError, without_values
from guilder_shared.settings.files import OwnRecipe

GROUP: Final = "guilder.recipes"
_lock = threading.Lock()
_loaded: dict[str, "Code | None"] = {}  # None: trusted as installed, in a simulation


@dataclass(frozen=True)
class Code:
    """Which code a recipe is."""

    package: str
    version: str
    sha256: str

    def as_dict(self) -> dict[str, str]:
        """As ledger and report hold it."""
        return asdict(self)


def admit(own: Mapping[str, OwnRecipe], name: str, *, who: str) -> Code | None:
    """Make sure that a recipe may run here, and load it if need be.

    Args:
        own: `[recipe.NAME]` of this machine's file.
        name: As a study names it.
        who: Of this machine, for the error.

    Returns:
        Whose code it is; None for Guilder's own.

    Raises:
        StudyError: GLD-C060 no such recipe is installed; GLD-C150 what is installed
            is no recipe.
        PolicyRefused: GLD-S067 this machine's file does not name it; GLD-S068 what is
            installed is not the wheel that the file names.
    """
    with _lock:
        if name in tasks.RECIPES or _loaded.get(name, ...) is None:
            return None
        lines = own.get(name)
        if lines is None:
            if not _points(name):
                tasks.recipe(name)  # raises: it is not installed
            raise _not_allowed(name, who)
        package = installed.demand_wheel(
            lines.package, lines.version, lines.wheel, lines.sha256
        )
        code = Code(lines.package, lines.version, lines.sha256.lower())
        before = _loaded.get(name)
        if before is None:
            _load(name, _points(name, package))
            _loaded[name] = code
        elif before != code:
            raise _differs_from_loaded(name, who)
        return code


def trust_installed(name: str) -> None:
    """Load a recipe as it is installed: for simulations on a researcher's machine.

    A deployed process never calls this.

    Raises:
        StudyError: GLD-C060, GLD-C150, as `admit`.
    """
    with _lock:
        if name not in tasks.RECIPES and name not in _loaded and _points(name):
            _load(name, _points(name))
            _loaded[name] = None


def found() -> list[tuple[str, str, str]]:
    """Name, package and version of every recipe that is installed; none is loaded."""
    return sorted(
        (point.name, point.dist.name, point.dist.version)
        for point in entry_points(group=GROUP)
        if point.dist is not None
    )


def _points(name: str, package: Distribution | None = None) -> list[EntryPoint]:
    if package is None:
        return list(entry_points(group=GROUP, name=name))
    return list(package.entry_points.select(group=GROUP, name=name))


def _load(name: str, points: list[EntryPoint]) -> None:
    if len(points) != 1:
        raise _no_recipe(name, f"{len(points)} entry points have this name")
    try:
        loaded: Any = points[0].load()
    except Exception as error:  # code of others may raise anything
        raise _no_recipe(
            name, f"it cannot be loaded: {without_values(error)}"
        ) from None
    if not isinstance(loaded, tasks.Recipe) or loaded.name != name:
        raise _no_recipe(name, "its entry point is no `Recipe` of this name")
    tasks.add(loaded)


def _no_recipe(name: str, what: str) -> StudyError:
    return StudyError(
        "GLD-C150",
        f"what is installed as recipe {name!r} is none: {what}",
        why="An entry point in the group guilder.recipes must be one Recipe.",
        fix="`guilder recipe new NAME` writes a package that is right.",
    )


def _not_allowed(name: str, who: str) -> PolicyRefused:
    return PolicyRefused(
        "GLD-S067",
        f"the recipe {name!r} is installed at {who!r}, and its file does not allow it",
        why="Code of others runs only where somebody named its package and hash.",
        fix=f"`guilder recipe allow WHEEL` prints [recipe.{name}] for the file.",
    )


def _differs_from_loaded(name: str, who: str) -> PolicyRefused:
    return PolicyRefused(
        "GLD-S068",
        f"the recipe {name!r} was allowed anew at {who!r}, and another one is running",
        why="Code that is loaded cannot be exchanged.",
        fix="Start the process again.",
    )
