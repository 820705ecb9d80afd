"""A deployed site in a folder, opened as its client opens it."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guilder_client import terms
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_server.init import SITE_TOML
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer, make_key, put

LINES = {
    "name": "a",
    "host": "127.0.0.1",
    "port": 1,
    "dataset": "d",
    "kind": "csv",
    "path": "data.csv",
    "public_size": 100,
    "epsilon": 6.0,
    "delta": 1e-5,
    "smallest_cohort": 1,
    "unprotected": "false",
}


@pytest.fixture
def site_at() -> Iterator[Callable[..., Site]]:
    """Open the site of a folder; `edit` and keywords change its site.toml.

    The officer signs what the file says. It does not wait: no reply is held to a clock.
    """
    opened: list[Site] = []

    def open_it(folder: Path, edit: Callable[[str], str] = str, **lines: Any) -> Site:
        folder.mkdir(exist_ok=True)
        (folder / "site.toml").write_text(edit(SITE_TOML.format(**{**LINES, **lines})))
        if not (folder / "signing.key").exists():
            SigningKey.generate().save(folder / "signing.key")
            make_key(folder)
        settings = SiteFile.load(folder / "site.toml")
        key = SigningKey.load(folder / "officer.key")
        officer = Officer(key, site=settings.site.name)
        for order in terms.sign(settings, officer, days=1):
            put(order, settings.site.state_dir / "orders")
        site = Site.open(settings)
        site.paced = False
        opened.append(site)
        return site

    yield open_it
    for site in opened:
        site.ledger.shut()


class Disk:
    """What somebody with a site's disk can do: copy its state, and put a copy back."""

    @staticmethod
    def copy(folder: Path, name: str = "yesterday") -> Path:
        """A copy of the state folder as it is now."""
        shutil.copytree(folder / "state", folder / name)
        return folder / name

    @staticmethod
    def put_back(folder: Path, copy: Path) -> None:
        """The state folder becomes what the copy is."""
        shutil.rmtree(folder / "state")
        shutil.copytree(copy, folder / "state")


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; skips where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
