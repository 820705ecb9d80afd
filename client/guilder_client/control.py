"""The line on which the server rings when there is something for this site.

While it is up, an idle site asks nothing: the server keeps it online and rings. It
carries no work and no data; without it the site asks as before, so nothing is lost
when it breaks. It is made anew by itself, after a pause with jitter.
"""

import logging
import os
import random
import threading
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc

from guilder_client import relay
from guilder_client.settings import SiteFile
from guilder_shared import tunnel
from guilder_shared.identity import read_private
from guilder_shared.proto import control_pb2 as messages
from guilder_shared.proto import control_pb2_grpc

stubs: Any = control_pb2_grpc  # generated without types
log = logging.getLogger(__name__)

LONGEST_SLEEP_S = 120.0  # then it asks once, whatever the line says
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
OPTIONS = (
    ("grpc.keepalive_time_ms", 25_000),  # a line that is dead at one end is noticed
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),  # else one a minute, from the third on
    ("grpc.max_receive_message_length", 4096),
)
NOT_SPOKEN = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.ABORTED)


class Bell:
    """Rung by the server; safe to wait for from another thread.

    Args:
        settings: Where the server is, and with which keys.
    """

    def __init__(self, settings: SiteFile) -> None:
        self._settings = settings
        self._rung = threading.Event()
        self._is_up = False
        self._call: Any = None

    @property
    def is_up(self) -> bool:
        """Whether the server would ring now."""
        return self._is_up

    def sleep(self, stop: threading.Event) -> bool:
        """Wait until rung, the line breaks, or two minutes; False if there is no line.

        A ring since the last sleep counts, so none is lost between asking and sleeping.
        """
        if not self._is_up or stop.is_set():
            return False
        self._rung.wait(LONGEST_SLEEP_S)
        self._rung.clear()
        return True

    def listen(self, stop: threading.Event) -> None:
        """Keep the line up until `stop`, in a thread of its own."""
        threading.Thread(target=self._hang_up, args=(stop,), daemon=True).start()
        retry_s = FIRST_RETRY_S
        while not stop.is_set():
            code = self._follow()
            if self._was_up:
                retry_s = FIRST_RETRY_S
            if code in NOT_SPOKEN:
                log.debug("the server rings no bell (%s): asking instead", code.name)
                retry_s = LONGEST_RETRY_S
            stop.wait(retry_s * random.uniform(0.5, 1))  # noqa: S311 - spreads the sites
            retry_s = min(2 * retry_s, LONGEST_RETRY_S)

    def _follow(self) -> Any:
        """One line, from its beginning to its end; why it ended."""
        self._was_up = False
        with self._channel() as channel:
            call = stubs.MembershipStub(channel).Attend(messages.AttendRequest())
            self._call = call
            try:
                for wake in call:
                    self._is_up = self._was_up = True
                    if not wake.is_keep_alive:
                        self._rung.set()
            except grpc.RpcError as error:
                failed: Any = error
                return failed.code()
            finally:
                self._is_up = False
                self._rung.set()  # nobody would ring any more
                call.cancel()
        return grpc.StatusCode.OK

    def _channel(self) -> Any:
        keys, url = self._settings.keys, self._settings.site.control
        place = urlsplit(url or self._settings.site.server)
        host, port = place.hostname or "", place.port or 443
        credentials = grpc.ssl_channel_credentials(
            keys.authority.read_bytes(),
            read_private(keys.key),
            keys.certificate.read_bytes(),
        )
        way = relay.grpc_way(self._settings.site.server, self._settings.proxy)
        options = [*OPTIONS, *way]
        return grpc.secure_channel(tunnel.address(host, port), credentials, options)

    def _hang_up(self, stop: threading.Event) -> None:
        stop.wait()
        if self._call is not None:
            self._call.cancel()
        self._rung.set()
