"""The server process: hub and control channel open, runs going on, until stopped."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from guilder_server.control import ControlServer
from guilder_server.hub import Hub
from guilder_server.service import Service
from guilder_server.settings import ServerFile
from guilder_shared import certificates, tls
from guilder_shared.claims import claimed

log = logging.getLogger(__name__)


def run_server(settings: ServerFile, stop: threading.Event) -> None:
    """Serve until `stop`; open runs are left as they are, to be gone on with.

    Both ports and the storage are this process's own before anything is served.

    Raises:
        NetworkError: A port is taken. EnrolmentError: a key or certificate is wrong.
        RunFailed: Another server has the storage (GLD-R030), or it cannot be written
            (GLD-R031).
    """
    with claimed(settings.server.storage):
        _serve(settings, stop)


def _serve(settings: ServerFile, stop: threading.Event) -> None:
    keys = settings.keys
    sites = certificates.roster(settings.sites.folder)

    @contextlib.contextmanager
    def open_grid(run_id: str) -> Iterator[Any]:
        try:
            yield hub.grid(run_id)
        finally:
            hub.close_run(run_id)

    service = Service(settings, open_grid)
    hub = Hub(
        (settings.server.host, settings.server.port),
        tls.server_context(tls.KeyFiles(keys.key, keys.certificate, keys.authority)),
        {name: site.node_key for name, site in sites.items()},
        remembered=service.heads.word,
    )
    control = ControlServer(settings, service)
    control.start()
    hub.start(("127.0.0.1", control.port) if settings.server.one_port else None)
    service.start()
    log.info("serving %d sites on port %d", len(sites), hub.port)
    threading.Thread(target=_warm_up, daemon=True, name="warm-up").start()
    stop.wait()
    control.stop()
    service.stop()
    hub.stop()


def _warm_up() -> None:
    """Import what the first run needs, while nobody waits."""
    import torch  # noqa: F401

    from guilder_shared.training import evaluate  # noqa: F401
