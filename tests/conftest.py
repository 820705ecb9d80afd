"""Fixtures for whole rooms: a consortium with keys, a hub and resident nodes."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples each time and no deadline: what fails here must fail for everyone.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


class Consortium:
    """Keys for some sites on this machine; hubs and nodes that end with the test."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        from guilder_shared.certificates import init_local_sites

        self.folder, self.names = folder, names
        init_local_sites(folder, names, ["127.0.0.1"])
        self._ends: list[Callable[[], None]] = []

    def site(self, name: str) -> Path:
        return self.folder / "sites" / name

    def hub(self, port: int = 0, **options: Any) -> Any:
        from guilder_server.hub import Hub
        from guilder_shared.certificates import roster
        from guilder_shared.tls import server_context

        sites = {
            n: s.node_key for n, s in roster(self.folder / "server" / "sites").items()
        }
        tls = server_context(self.folder / "server")
        hub = Hub(("127.0.0.1", port), tls, sites, **options)
        hub.start()
        self._ends.append(hub.stop)
        return hub

    def node(self, name: str, port: int, app: Any, **options: Any) -> threading.Event:
        """Start a node in a thread; the event it returns stops it."""
        from guilder_client.node import Node

        url = f"https://127.0.0.1:{port}"
        node = Node(url, self.site(name), app, {"site": name}, **options)
        stop = threading.Event()
        thread = threading.Thread(target=node.run_forever, args=(stop,), daemon=True)
        thread.start()
        self._ends.append(stop.set)
        return stop

    def close(self) -> None:
        for end in reversed(self._ends):
            end()


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[Consortium]:
    made = Consortium(tmp_path / "consortium", ("alder", "birch", "cedar"))
    yield made
    made.close()


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Wait until something is true, and fail with its name if it never is."""

    def wait(what: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if found := what():
                return found
            time.sleep(0.01)
        raise AssertionError(f"not within {timeout_s} s")

    return wait
