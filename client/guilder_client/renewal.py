"""Keeping a site's certificate good while the client runs.

Looks about once an hour whether half of its life is over, and then asks for a new one
for the same keys (decision 044). A server that cannot be asked is asked again; only
the certificate's end stops a site, and `client start` says so. It makes no key.
"""

import logging
import random
import threading
from collections.abc import Callable

from guilder_client.settings import SiteFile
from guilder_shared.errors import GuilderError

log = logging.getLogger(__name__)
LOOK_S = 3600.0


def keep(
    settings: SiteFile, renewed: Callable[[], None], stop: threading.Event
) -> None:
    """Renew when it is time, until `stop`.

    Args:
        settings: Of the site.
        renewed: Called when a new certificate is on disk.
        stop: Ends it.
    """
    while not stop.is_set():
        look(settings, renewed)
        stop.wait(LOOK_S * random.uniform(0.5, 1))  # noqa: S311 - spreads the sites


def look(settings: SiteFile, renewed: Callable[[], None]) -> None:
    """Renew if it is time; what goes wrong stands in the log."""
    from guilder_client.join import renew

    try:
        if renew(settings):
            renewed()
            log.info("the certificate was renewed")
    except GuilderError as error:
        log.warning("the certificate was not renewed: %s", error)
