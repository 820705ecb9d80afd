"""What is installed here: versions against what Guilder was built for.

It reads metadata of installed packages and loads none of them.
"""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from guilder.doctor.finding import Finding, fine, wrong
from guilder_shared import installed


def check() -> Iterator[Finding]:
    """Whether all that Guilder needs is here, in versions it was made for."""
    bad = list(_mistakes())
    told = f"Guilder {version('guilder')}, Python {platform.python_version()}"
    if bad:
        yield wrong(
            "versions",
            "GLD-M007",
            f"{told}: {'; '.join(bad)}",
            why="Packages were changed after Guilder was installed.",
            fix="Install Guilder anew, with its constraints.txt, in its own folder.",
            exit_code=2,
        )
        return
    yield fine("versions", f"{told}; installed packages: {installed.digest()[:16]}")


def _mistakes() -> Iterator[str]:
    for line in requires("guilder") or ():
        need = Requirement(line)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            here = version(need.name)
        except PackageNotFoundError:
            yield f"{need.name} is missing"
            continue
        if not need.specifier.contains(here, prereleases=True):
            yield f"{need.name} is {here}, needed is {need.specifier}"
