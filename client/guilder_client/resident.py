"""The client process: one site open, one node online, until stopped."""

import json
import logging
import threading
from collections.abc import Sequence

from guilder_client import app as client_app
from guilder_client import renewal
from guilder_client.control import Bell
from guilder_client.incoming import Incoming
from guilder_client.node import Node
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_shared import durable, installed, tls, wire

log = logging.getLogger(__name__)


def run_client(
    settings: SiteFile, stop: threading.Event, warnings: Sequence[str] = ()
) -> None:
    """Keep the site online until `stop`; `warnings` go into the log once it is open.

    The ledger is opened and verified before the first byte is sent; torch is loaded
    after the site is online, so that a restarted client is seen within seconds.

    Raises:
        IntegrityError: The ledger was changed. EnrolmentError: a key is missing.
    """
    site = Site.open(settings)
    for each in warnings:
        log.warning("%s", each)
    _record(settings)
    keys = settings.keys
    warm_up = threading.Thread(target=_warm_up, daemon=True, name="warm-up")

    witnesses = site.witnesses
    assert witnesses is not None, "a deployed site has them"
    witnesses.greet(site.ledger)

    def on_online() -> None:
        witnesses.forget()  # the machine may have been put back to an earlier state
        log.info("site %s is online", site.name)
        if site.pause is not None and (paused := site.pause.state()):
            log.warning("paused since %s: `client pause --end`", paused.since)
        if warm_up.ident is None:  # not started yet
            warm_up.start()

    bell = Bell(settings)
    node = Node(
        settings.site.server,
        tls.KeyFiles(keys.key, keys.certificate, keys.authority),
        client_app.make_app(lambda _context: site),
        {"site": site.name},
        on_online=on_online,
        held=lambda reply: (
            site.holds
            and reply.has_content()
            and wire.MODEL in reply.content.array_records
        ),
        proxy=settings.proxy,
        sleep=bell.sleep,
        incoming=Incoming(settings.site.state_dir / "incoming"),
    )
    threading.Thread(target=bell.listen, args=(stop,), daemon=True, name="bell").start()
    renewing = threading.Thread(
        target=renewal.keep,
        args=(settings, node.show_anew, stop),
        daemon=True,
        name="renewal",
    )
    renewing.start()
    try:
        node.run_forever(stop)
    finally:
        site.ledger.shut()


def _record(settings: SiteFile) -> None:
    """Keep what is installed as this client starts; its digest is logged."""
    told = {"sha256": installed.digest(), "packages": installed.listing()}
    path = settings.site.state_dir / "installed.json"
    try:
        durable.write(path, json.dumps(told, indent=1).encode())
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error.strerror)
    log.info("installed packages have the digest %s", told["sha256"])


def _warm_up() -> None:
    """Import what offers and turns need, while the server is not waiting for it."""
    import dp_accounting.pld  # noqa: F401

    from guilder_shared.training import selftest  # noqa: F401 - and with it, fit
